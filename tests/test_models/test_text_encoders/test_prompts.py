# Licensed under the Apache License, Version 2.0.
import pytest
import torch

from mmdet_clim.models.text_encoders import (
    PrecomputedTextEncoder,
    check_distinct,
    encode_classes,
    prompts,
)


@pytest.fixture
def encoder(tmp_path):
    names = ['a photo of a cat.', 'a dog', 'a cat', 'the cat']
    vectors = torch.tensor([[3.0, 4.0], [0.0, 2.0], [5.0, 0.0], [0.0, 0.1]])
    torch.save(dict(names=names, vectors=vectors), tmp_path / 'texts.pth')
    return PrecomputedTextEncoder(str(tmp_path / 'texts.pth'))


def test_one_template(encoder):
    torch.testing.assert_close(
        encode_classes(encoder, ['cat']), torch.tensor([[0.6, 0.8]]))
    torch.testing.assert_close(
        encode_classes(encoder, ['dog', 'cat'], ('a {}', )),
        torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    assert encode_classes(encoder, []).shape == (0, 2)


def test_mean_of_unit_vectors_normalised_again(encoder):
    half = 0.5**0.5
    torch.testing.assert_close(
        encode_classes(encoder, ['cat'], ('a {}', 'the {}')),
        torch.tensor([[half, half]]))


@pytest.mark.parametrize('names, templates, error, message', [
    (['cat'], ('a cat', ), ValueError, "exactly once in each, got 'a cat'"),
    (['cat'], ('{} {}', ), ValueError, 'exactly once'),
    (['cat'], (), ValueError, 'templates: expected at least one'),
    (['cat'], 'a {}', TypeError, "got the string 'a {}'"),
    (['cat'], 'vlid', ValueError, r"\['imagenet', 'vild'\] .* 'vlid'"),
    (['cat'], ('{artikel} {}', ), ValueError, 'got {artikel} in'),
    (['cat'], (3, ), TypeError, 'expected strings, got 3'),
    (['cat'], None, TypeError, 'got None'),
    ('cat', ('a {}', ), TypeError, "got the string 'cat'"),
    ([''], ('a {}', ), ValueError, r'texts\[0\] is empty'),
])
def test_wrong_input(encoder, names, templates, error, message):
    with pytest.raises(error, match=message):
        encode_classes(encoder, names, templates)


def test_classes_that_the_encoder_can_not_tell_apart(encoder, monkeypatch):
    # "the cat" and "a dog" have one direction.
    both = ('{}', )
    with pytest.raises(ValueError, match="'a dog' and 'the cat'"):
        encode_classes(encoder, ['a cat', 'a dog', 'the cat'], both)
    # Rows are compared in pieces.
    monkeypatch.setattr(prompts, 'ROWS', 1)
    with pytest.raises(ValueError, match="'a dog' and 'the cat'"):
        encode_classes(encoder, ['a cat', 'a dog', 'the cat'], both)
    encode_classes(encoder, ['the cat', 'a cat'], both)
    angle = torch.tensor([0., 2e-3])  # a cosine of 1 - 2e-6
    near = torch.stack([angle.cos(), angle.sin()], 1)
    check_distinct(['a', 'b'], near)
    with pytest.raises(ValueError, match="'a' and 'b'; give names"):
        check_distinct(['a', 'b'], near[:1].expand(2, 2))
    check_distinct([], torch.zeros(0, 4))
    check_distinct(['a'], near[:1])
