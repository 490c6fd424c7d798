# Licensed under the Apache License, Version 2.0.
"""Tiny real models on the disk: a BERT and an open_clip model."""
import json

import pytest
import torch

import mmdet_clim  # noqa: F401  (first: open_clip needs what it prepares)

WORDS = 'a an the photo of cat dog word one two on grass . ,'.split()


@pytest.fixture(scope='session')
def bert_folder(tmp_path_factory):
    """BERT of width 16 and 12 positions, with a vocabulary of 19 tokens."""
    from transformers import BertConfig, BertModel, BertTokenizer
    folder = tmp_path_factory.mktemp('bert')
    vocabulary = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *WORDS]
    file = folder / 'vocab.txt'
    file.write_text('\n'.join(vocabulary))
    BertTokenizer(str(file)).save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=12)).save_pretrained(folder)
    return folder


@pytest.fixture(scope='session')
def tiny_clip(tmp_path_factory):
    """Name of an open_clip model of width 16 and 10 tokens."""
    import open_clip
    folder = tmp_path_factory.mktemp('open_clip')
    vision = dict(
        image_size=32, layers=1, width=32, patch_size=16, head_width=16)
    text = dict(
        context_length=10, vocab_size=49408, width=16, heads=2, layers=1)
    (folder / 'tiny-clip.json').write_text(
        json.dumps(dict(embed_dim=12, vision_cfg=vision, text_cfg=text)))
    open_clip.add_model_config(folder)
    return 'tiny-clip'


@pytest.fixture(scope='session')
def tiny_clip_weights(tiny_clip, tmp_path_factory):
    """A checkpoint of the tiny open_clip model."""
    import open_clip
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp('weights') / 'tiny.pt'
    torch.save(open_clip.create_model(tiny_clip).state_dict(), file)
    return file
