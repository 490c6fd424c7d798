# Licensed under the Apache License, Version 2.0.
import pytest
import torch

from mmdet_clim.models.region_readers.grounding_prompts import (
    clean_phrase,
    pack_phrases,
)
from mmdet_clim.models.region_readers.grounding_reader import grounding_samples


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
    with pytest.raises(ValueError, match="'long' alone"):
        pack_phrases(['long'], lambda text: 9, 6)
    assert pack_phrases([], count, 6) == []


def test_marks_that_end_a_phrase():
    assert clean_phrase(' A cat.  Two dogs! ') == 'A cat, Two dogs'
    assert clean_phrase('...') == ''


def test_boxes_go_with_their_phrases():
    """Joined texts, and a box of two prompts, worked out by hand."""
    prompts = pack_phrases(['a b', 'c', 'd e'], count, 7)
    assert [p.text for p in prompts] == ['a b. c. ', 'd e. ']
    boxes = torch.arange(12.).view(3, 4)
    positives = torch.tensor([[True, True, False], [False, True, True],
                              [False, False, True]])
    first, second = grounding_samples(prompts, boxes, positives,
                                      dict(img_shape=(9, 9)))
    assert first.tokens_positive == [[[0, 3], [5, 6]], [[5, 6]]]
    assert second.tokens_positive == [[[0, 3]], [[0, 3]]]
    assert torch.equal(first.gt_instances.bboxes, boxes[:2])
    assert torch.equal(second.gt_instances.bboxes, boxes[1:])
    assert second.gt_instances.labels.tolist() == [0, 1]
    assert second.img_shape == (9, 9)
    # Nobody looks for the last phrase: no sample for its prompt.
    assert len(grounding_samples(prompts, boxes[:1], positives[:1], {})) == 1
