# Licensed under the Apache License, Version 2.0.
import pytest
import torch
import torch.nn.functional as F

from mmdet_clim.models.text_encoders import build_text_encoder, encode_classes
from mmdet_clim.registry import MODELS


@pytest.fixture
def cfg(tmp_path):
    torch.manual_seed(0)
    texts = ['cat', 'dog', 'a cat.', 'a dog.', 'a cat on a dog.']
    torch.save(
        dict(names=texts, vectors=torch.randn(5, 4)), tmp_path / 'texts.pth')
    torch.save(
        dict(names=['cat'], vectors=torch.tensor([[3., 0., 0., 0.]])),
        tmp_path / 'examples.pth')
    return dict(
        type='mmdet_clim.ExampleTextEncoder',
        encoder=dict(
            type='mmdet_clim.PrecomputedTextEncoder',
            file=str(tmp_path / 'texts.pth')),
        file=str(tmp_path / 'examples.pth'),
        templates=('a {}.', ))


def test_names_are_mixed_and_other_texts_are_not(cfg):
    texts = ['a cat.', 'a dog.', 'a cat on a dog.', 'cat']
    plain = build_text_encoder(cfg['encoder'])(texts)
    encoder = build_text_encoder(dict(cfg, weight=0.25))
    assert encoder.dim == 4 and not list(encoder.parameters())
    found = encoder(texts)
    shown = torch.tensor([1., 0, 0, 0])
    torch.testing.assert_close(found[1:3], plain[1:3])
    for row in (0, 3):
        torch.testing.assert_close(
            found[row], F.normalize(.25 * shown + .75 * plain[row], dim=0))
    torch.testing.assert_close(
        encode_classes(encoder, ['cat', 'dog'], ('a {}.', ))[0], found[0])
    torch.testing.assert_close(
        MODELS.build(dict(cfg, weight=0.))(texts), plain)
    alone = MODELS.build(dict(cfg, weight=1.))
    torch.testing.assert_close(alone(texts)[0], shown)
    # They are two encoders for whoever keeps embeddings.
    assert alone.fingerprint != encoder.fingerprint
    assert alone([]).shape == (0, 4)


def test_examples_that_do_not_fit(cfg, tmp_path):
    for weight in (-.1, 1.1):
        with pytest.raises(ValueError, match='weight: expected 0 to 1'):
            MODELS.build(dict(cfg, weight=weight))
    torch.save(
        dict(names=['cat'], vectors=torch.ones(1, 3)),
        tmp_path / 'examples.pth')
    with pytest.raises(ValueError, match='expected vectors of width 4, got 3'):
        MODELS.build(cfg)
