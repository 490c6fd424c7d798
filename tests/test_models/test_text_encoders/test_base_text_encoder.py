# Licensed under the Apache License, Version 2.0.
import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdet_clim.models.text_encoders import BaseTextEncoder


class LetterEncoder(BaseTextEncoder):
    """Encodes how often each letter stands in a text, and notes what for."""

    def __init__(self, **kwargs):
        super().__init__(
            nn.Sequential(nn.Linear(26, 4), nn.Dropout(0.5)), **kwargs)
        self.batches = []

    @property
    def dim(self):
        return 4

    def _encode(self, texts):
        self.batches.append(list(texts))
        counts = [[float(text.count(chr(97 + i))) for i in range(26)]
                  for text in texts]
        return self.tower(torch.tensor(counts, device=self.device))


def test_unit_vectors_in_the_order_of_the_texts():
    encoder = LetterEncoder()
    texts = ['cat', 'a dog', 'cat', 'zebra']
    embeddings = encoder(texts)
    assert embeddings.shape == (4, 4) and embeddings.dtype == torch.float32
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(4))
    linear = encoder.tower[0]
    expected = linear.weight[:, [2, 0, 19]].sum(1) + linear.bias
    for row in (0, 2):
        torch.testing.assert_close(embeddings[row],
                                   F.normalize(expected, dim=0))
    assert encoder([]).shape == (0, 4)


def test_each_distinct_text_is_encoded_once():
    encoder = LetterEncoder(batch_size=2)
    first = encoder(['b', 'a', 'b', 'c'])
    # Four at a time on the CPU, filled up.
    assert encoder.batches == [['b', 'a', 'c', 'c']]
    assert torch.equal(encoder(['c', 'd', 'a'])[[0, 2]], first[[3, 1]])
    assert encoder.batches[1:] == [['d', 'd', 'd', 'd']]


def test_cache_drops_the_least_recently_used():
    encoder = LetterEncoder(cache_size=2)
    encoder(['a', 'b'])
    encoder(['a'])
    encoder(['c'])
    encoder.batches.clear()
    encoder(['a', 'c'])
    assert encoder.batches == []
    encoder(['b'])
    assert encoder.batches == [['b', 'b', 'b', 'b']]
    assert encoder(list('abcdef')).shape == (6, 4)
    assert LetterEncoder(cache_size=0)(['a', 'a']).shape == (2, 4)


def test_frozen_and_not_part_of_the_model():
    model = nn.Sequential(LetterEncoder(), nn.Linear(4, 4))
    encoder = model[0]
    assert len(list(model.parameters())) == 2
    assert list(model.state_dict()) == ['1.weight', '1.bias']
    assert not any(p.requires_grad for p in encoder.tower.parameters())
    model.train()
    assert not encoder.tower.training
    assert not encoder(['a']).requires_grad
    torch.testing.assert_close(
        encoder(['abc']),
        copy.deepcopy(encoder)(['abc']))


def test_float32_whatever_the_model_is_cast_to():
    encoder = LetterEncoder()
    expected = encoder(['a dog'])
    model = nn.Sequential(LetterEncoder())
    model[0].tower.load_state_dict(encoder.tower.state_dict())
    model.half()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(model(['a dog']), expected)


def test_moves_with_the_model():
    model = nn.Sequential(LetterEncoder())
    model[0](['a'])
    model.to('meta')
    assert model[0].device.type == 'meta'
    assert model[0].tower[0].weight.is_meta
    # From the cache, which went along.
    assert model(['a']).is_meta


def test_embeddings_of_inference_mode_serve_training():
    encoder = LetterEncoder()
    with torch.inference_mode():
        encoder(['a'])
    weight = torch.ones(4, requires_grad=True)
    (encoder(['a']) * weight).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize('texts, error, message', [
    (['a', ''], ValueError, r'texts\[1\] is empty'),
    (['  \n'], ValueError, r'texts\[0\] is empty'),
    ('cat', TypeError, "got the string 'cat'"),
    (['a', None], TypeError, r'texts\[1\] must be a string, got None'),
])
def test_wrong_texts(texts, error, message):
    with pytest.raises(error, match=message):
        LetterEncoder()(texts)


@pytest.mark.parametrize(
    'arguments', [dict(cache_size=-1), dict(batch_size=0)])
def test_wrong_arguments(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        LetterEncoder(**arguments)
