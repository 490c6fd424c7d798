# Licensed under the Apache License, Version 2.0.
"""Which phrases tell of which regions of a mosaic."""
import pytest
import torch

from mmdet_clim.models.objectives import GroundingObjective

CLASSES = ('cat', 'dog', 'cow', 'bus', 'cup')


def test_a_caption_per_tile_and_joined_ones(make):
    torch.manual_seed(0)
    _, sample = make['mosaic'](0)
    phrases, boxes, positives = GroundingObjective().targets(sample)
    assert phrases == ['a cat', 'two dogs', 'a cow on grass', 'a red bus']
    # Four tiles, then four of the rectangles of a 2x2 grid.
    assert torch.equal(boxes[:4], sample.gt_instances.bboxes)
    assert torch.equal(positives[:4], torch.eye(4).bool())
    assert len(boxes) == len(positives) == 8
    corners = sample.gt_instances.bboxes
    for box, told in zip(boxes[4:], positives[4:]):
        assert torch.equal(box[:2], corners[told, :2].amin(0))
        assert torch.equal(box[2:], corners[told, 2:].amax(0))
        assert told.sum() in (2, 4)


def test_tags_are_names_with_others_beside_them(make):
    _, sample = make['mosaic'](0)
    sample.set_metainfo(dict(tags=[[0, 3], [3], [], [1]]))
    objective = GroundingObjective(
        'tags', CLASSES, num_negatives=9, num_compositions=0)
    phrases, boxes, positives = objective.targets(sample)
    assert phrases[:3] == ['cat', 'bus', 'dog']
    assert sorted(phrases[3:]) == ['cow', 'cup']
    assert torch.equal(boxes, sample.gt_instances.bboxes[[0, 1, 3]])
    assert positives.int().tolist() == [[1, 1, 0, 0, 0], [0, 1, 0, 0, 0],
                                        [0, 0, 1, 0, 0]]


def test_two_tiles_with_one_text(make):
    _, sample = make['mosaic'](0)
    sample.set_metainfo(
        dict(captions=[['a cat.'], ['A dog'], ['a cat'], ['.']]))
    phrases, boxes, positives = GroundingObjective(
        num_compositions=0).targets(sample)
    assert phrases == ['a cat', 'A dog']
    assert positives.int().tolist() == [[1, 0], [0, 1], [1, 0]]


@pytest.mark.parametrize('arguments, message', [
    (dict(texts='names'), "'captions', 'tags'"),
    (dict(texts='tags'), 'vocabulary'),
    (dict(num_compositions=-1), 'num_compositions'),
])
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        GroundingObjective(**arguments)
