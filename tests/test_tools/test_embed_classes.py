# Licensed under the Apache License, Version 2.0.
import runpy
import sys

import numpy as np
import pytest
import torch

import mmdet_clim  # noqa: F401
from mmdet_clim.datasets import OVCocoDataset
from mmdet_clim.models.text_encoders import (
    PrecomputedTextEncoder,
    SentenceTextEncoder,
    encode_classes,
)


@pytest.fixture
def run(repository, monkeypatch):

    def _run(*args):
        script = str(repository / 'tools/embeddings/embed_classes.py')
        monkeypatch.setattr(sys, 'argv', [script, *map(str, args)])
        runpy.run_path(script, run_name='__main__')

    return _run


@pytest.fixture
def bert(tmp_path):
    """A sentence encoder of width 8 on the disk."""
    from transformers import BertConfig, BertModel, BertTokenizer
    folder = tmp_path / 'bert'
    folder.mkdir()
    words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'cat', 'dog', 'a']
    # COCO's classes, which it would otherwise not tell apart.
    words += sorted({
        word
        for name in OVCocoDataset.METAINFO['classes']
        for word in name.split()
    } - set(words))
    (folder / 'vocab.txt').write_text('\n'.join(words))
    BertTokenizer(str(folder / 'vocab.txt')).save_pretrained(folder)
    BertModel(
        BertConfig(
            vocab_size=len(words),
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8)).save_pretrained(folder)
    return folder


def test_names_vectors_templates_and_encoder(run, bert, tmp_path):
    vocabulary, templates = tmp_path / 'names.txt', tmp_path / 'prompts.txt'
    vocabulary.write_text('cat\n\ndog\n')
    templates.write_text('a {}\n{} a cat\n')
    out = tmp_path / 'new' / 'names.npz'
    run('--vocabulary', vocabulary, '--sentence', bert, '--templates',
        templates, '--out', out)
    with np.load(out) as archive:
        assert archive['names'].tolist() == ['cat', 'dog']
        assert archive['templates'].tolist() == ['a {}', '{} a cat']
        assert archive['encoder'].item() == str(bert)
    expected = encode_classes(
        SentenceTextEncoder(path=str(bert)), ['cat', 'dog'],
        ['a {}', '{} a cat'])
    torch.testing.assert_close(
        PrecomputedTextEncoder(str(out))(['cat', 'dog']), expected)
    assert [file.name for file in out.parent.iterdir()] == ['names.npz']


def test_templates_by_name(run, bert, tmp_path):
    out = tmp_path / 'names.npz'
    run('--vocabulary', 'cat,owl', '--sentence', bert, '--templates', 'vild',
        '--out', out)
    with np.load(out) as archive:
        assert len(archive['templates']) == 63
        found = torch.from_numpy(archive['vectors'])
    torch.testing.assert_close(
        found,
        encode_classes(
            SentenceTextEncoder(path=str(bert)), ['cat', 'owl'], 'vild'))
    with pytest.raises(SystemExit, match="error: .*'vlid': expected .*'vild'"):
        run('--vocabulary', 'cat,owl', '--sentence', bert, '--templates',
            'vlid', '--out', out)


def test_vocabulary_of_a_dataset(run, bert, tmp_path):
    out = tmp_path / 'coco.npz'
    run('--vocabulary', 'mmdet_clim.OVCocoDataset', '--sentence', bert,
        '--out', out)
    encoder = PrecomputedTextEncoder(str(out), dim=8)
    assert len(encoder.names) == 65 and encoder.names[0] == 'person'


def test_a_failure_leaves_the_old_file(run, bert, tmp_path):
    names, out = tmp_path / 'names.txt', tmp_path / 'names.npz'
    out.write_bytes(b'old')
    names.write_text('cat\ncat\n')
    with pytest.raises(SystemExit, match='error: .*given twice'):
        run('--vocabulary', names, '--sentence', bert, '--out', out)
    assert out.read_bytes() == b'old'


@pytest.mark.parametrize('args, message', [
    (['--sentence', 'x', '--out', 'a.pth'], '--out must end in .npz'),
    (['--open-clip', 'ViT-B-32', '--out', 'a.npz'], 'requires --checkpoint'),
    (['--sentence', 'x', '--checkpoint', 'y', '--out', 'a.npz'
      ], '--checkpoint: requires --open-clip'),
    (['--sentence', 'x', '--open-clip', 'y', '--out', 'a.npz'
      ], 'not allowed with'),
])
def test_wrong_command_lines(run, args, message, capsys):
    with pytest.raises(SystemExit):
        run('--vocabulary', 'names.txt', *args)
    assert message in capsys.readouterr().err
