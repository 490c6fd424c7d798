# Licensed under the Apache License, Version 2.0.
import numpy as np
import pytest

from mmdet_clim.datasets.transforms import BaseClassPrompt
from mmdet_clim.datasets.vocabulary import Vocabulary

NAMES = ('cat', 'dog', 'cow', 'bus', 'cup')
BASE = ('dog', 'bus', 'cup')


def prompt(labels, num_negatives=None):
    transform = BaseClassPrompt(Vocabulary(NAMES, BASE), num_negatives)
    return transform(dict(gt_bboxes_labels=np.array(labels, dtype=np.int64)))


def test_all_base_classes_and_no_other():
    out = prompt([4, 1, 4])
    assert out['text'] == BASE
    assert out['gt_bboxes_labels'].tolist() == [2, 0, 2]
    assert out['custom_entities'] is True
    assert prompt([])['text'] == BASE


def test_some_that_the_image_does_not_show():
    seen = set()
    for _ in range(20):
        out = prompt([3, 3], 1)
        assert len(out['text']) == 2
        assert [out['text'][label]
                for label in out['gt_bboxes_labels']] == ['bus', 'bus']
        seen.add(out['text'])
    assert seen <= {('bus', 'dog'), ('dog', 'bus'), ('bus', 'cup'),
                    ('cup', 'bus')}
    assert len(seen) > 1
    assert prompt([1], 0)['text'] == ('dog', )


def test_wrong_input():
    with pytest.raises(ValueError, match=r"boxes of \['cow'\]"):
        prompt([1, 2])
    with pytest.raises(ValueError, match='num_negatives'):
        prompt([1], -1)
