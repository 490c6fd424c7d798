# Licensed under the Apache License, Version 2.0.
import copy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdet_clim.models.text_encoders import BaseTextEncoder, encode_classes


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


def test_cached_embeddings_are_those_of_the_text_whatever_came_between():
    """Against a dict, over many draws from more texts than are kept."""
    encoder, plain = LetterEncoder(cache_size=7), LetterEncoder(cache_size=0)
    plain.tower.load_state_dict(encoder.tower.state_dict())
    generator = torch.Generator().manual_seed(0)
    used = []
    for _ in range(60):
        count = int(torch.randint(1, 7, (), generator=generator))
        drawn = torch.randint(0, 12, (count, ), generator=generator).tolist()
        texts = [chr(97 + index) for index in drawn]
        encoder.batches.clear()
        torch.testing.assert_close(encoder(texts), plain(texts))
        distinct = list(dict.fromkeys(texts))
        # Batches are filled up with their last text.
        encoded = list(dict.fromkeys(sum(encoder.batches, [])))
        assert encoded == [text for text in distinct if text not in used]
        used = [text for text in used if text not in distinct]
        used += [t for t in distinct if t not in encoded] + encoded
        used = used[-7:]


def made_up_names(count):
    """Of twelve letters each, which the encoder tells apart."""
    generator = torch.Generator().manual_seed(0)
    letters = torch.randint(97, 123, (count, 12), generator=generator)
    return [''.join(map(chr, row)) for row in letters.tolist()]


def test_a_vocabulary_is_encoded_once_per_process(tmp_path, monkeypatch):
    """The next process finds it on the disk, if the weights are the same."""
    monkeypatch.setenv('MMDET_CLIM_CACHE', str(tmp_path))
    names = made_up_names(300)
    first = LetterEncoder()
    embeddings = encode_classes(first, names)
    assert sum(map(len, first.batches)) == 300
    torch.testing.assert_close(
        embeddings, first([f'a photo of a {name}.' for name in names]))
    first.batches.clear()
    embeddings[0] = 7  # a copy, which is the caller's own
    assert encode_classes(first, names)[0].norm().item() == pytest.approx(1)
    assert first.batches == []
    later = LetterEncoder()
    later.tower.load_state_dict(first.tower.state_dict())
    assert torch.equal(
        encode_classes(later, names), encode_classes(first, names))
    assert later.batches == []
    # Another order, another prompt, another encoder, a broken file.
    encode_classes(later, names[::-1])
    encode_classes(later, names, ('{}', ))
    assert sum(map(len, later.batches)) == 600
    other = LetterEncoder()
    encode_classes(other, names)
    assert sum(map(len, other.batches)) == 300
    for file in tmp_path.rglob('*.pth'):
        file.write_bytes(b'nothing')
    broken = LetterEncoder()
    broken.tower.load_state_dict(first.tower.state_dict())
    assert torch.equal(
        encode_classes(broken, names), encode_classes(first, names))
    assert sum(map(len, broken.batches)) == 300


def test_a_few_names_make_no_file_and_a_folder_may_be_read_only(
        tmp_path, monkeypatch):
    monkeypatch.setenv('MMDET_CLIM_CACHE', str(tmp_path / 'file'))
    encode_classes(LetterEncoder(), ['cat', 'dog'])
    assert not (tmp_path / 'file').exists()
    (tmp_path / 'file').write_text('no folder')
    names = made_up_names(300)
    assert encode_classes(LetterEncoder(), names).shape == (300, 4)


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


def test_tf32_on_a_gpu_alone():
    encoder = LetterEncoder()
    before = torch.get_float32_matmul_precision()
    with encoder.full_speed():
        assert torch.get_float32_matmul_precision() == before
    encoder._probe = SimpleNamespace(device=torch.device('cuda'))
    with pytest.raises(KeyError), encoder.full_speed():
        assert torch.get_float32_matmul_precision() == 'high'
        raise KeyError
    assert torch.get_float32_matmul_precision() == before
    encoder.allow_tf32 = False
    with encoder.full_speed():
        assert torch.get_float32_matmul_precision() == before


def test_vocabularies_are_encoded_in_float32():
    encoder = LetterEncoder()
    seen = []
    encoder.register_forward_hook(lambda *_: seen.append(encoder.allow_tf32))
    encode_classes(encoder, ['dog', 'cat'], ['a {}'])
    encoder(['a dog'])
    assert seen == [False, True]


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
