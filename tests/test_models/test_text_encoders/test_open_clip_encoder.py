# Licensed under the Apache License, Version 2.0.
import json
import logging
import pickle

import pytest
import torch
import torch.nn.functional as F

from mmdet_clim.models.text_encoders import OpenCLIPTextEncoder
from mmdet_clim.registry import MODELS

TEXTS = ['a photo of a cat', 'two dogs, on grass.']


def test_equals_open_clip_itself(tiny_clip, tiny_clip_weights):
    import open_clip
    encoder = MODELS.build(
        dict(
            type='mmdet_clim.OpenCLIPTextEncoder',
            model=tiny_clip,
            pretrained=str(tiny_clip_weights)))
    assert encoder.dim == 12
    model = open_clip.create_model(tiny_clip).eval()
    model.load_state_dict(torch.load(tiny_clip_weights, weights_only=True))
    with torch.no_grad():
        expected = model.encode_text(open_clip.get_tokenizer(tiny_clip)(TEXTS))
    torch.testing.assert_close(encoder(TEXTS), F.normalize(expected, dim=1))
    assert not encoder.state_dict() and not list(encoder.parameters())


def test_a_text_is_padded_to_its_own_length(tmp_path):
    """Of 48 tokens, to the next multiple of sixteen; it changes nothing."""
    import open_clip
    file = tmp_path / 'text-encoder-long.json'
    text = dict(
        context_length=48, vocab_size=49408, width=16, heads=2, layers=2)
    vision = dict(
        image_size=32, layers=1, width=32, patch_size=16, head_width=16)
    file.write_text(
        json.dumps(dict(embed_dim=12, vision_cfg=vision, text_cfg=text)))
    encoder = OpenCLIPTextEncoder(str(file))
    texts = ['a cat', 'dog ' * 14, 'dog ' * 20, 'dog ' * 60]
    seen = []
    encoder.tower.token_embedding.register_forward_pre_hook(
        lambda module, args: seen.append(args[0].shape[1]))
    found = encoder(texts)
    assert sorted(seen) == [16, 32, 48]
    with torch.no_grad():
        expected = encoder.tower.encode_text(
            open_clip.get_tokenizer(file.stem)(texts))
    torch.testing.assert_close(found, F.normalize(expected, dim=1))


def test_texts_over_the_limit_are_cut_and_counted(tiny_clip, caplog):
    encoder = OpenCLIPTextEncoder(tiny_clip)
    # Ten tokens hold eight words between the start and the end.
    fits, over = 'cat ' * 8, 'cat ' * 9
    with caplog.at_level(logging.WARNING, 'mmengine'):
        embeddings = encoder([fits, over])
        assert encoder.num_truncated == 1
        encoder(['dog ' * 300])
    assert encoder.num_truncated == 2
    torch.testing.assert_close(embeddings[0], embeddings[1])


def test_unknown_model_names_those_that_exist(tiny_clip):
    with pytest.raises(ValueError) as caught:
        OpenCLIPTextEncoder('ViT-B-33')
    assert "did you mean ['ViT-B-32'" in str(caught.value)
    assert tiny_clip in str(caught.value)


def test_unknown_weights_name_the_tags():
    with pytest.raises(ValueError, match="neither a file nor.*'openai'"):
        OpenCLIPTextEncoder('ViT-B-32', 'no/such/file.pt')


class Malicious:

    def __reduce__(self):
        return print, ('a checkpoint ran code', )


def test_checkpoint_with_code_is_refused(tiny_clip, tmp_path, capsys):
    torch.save(dict(state_dict=Malicious()), tmp_path / 'bad.pt')
    with pytest.raises(pickle.UnpicklingError):
        OpenCLIPTextEncoder(tiny_clip, str(tmp_path / 'bad.pt'))
    assert 'ran code' not in capsys.readouterr().out
