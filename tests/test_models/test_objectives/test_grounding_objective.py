# Licensed under the Apache License, Version 2.0.
"""Which phrases tell of which regions of a mosaic."""
import pytest
import torch

from mmdet_clim.datasets.vocabulary import Vocabulary
from mmdet_clim.models.objectives import GroundingObjective
from mmdet_clim.models.objectives.tile_batch import union_boxes

CLASSES = ('cat', 'dog', 'cow', 'bus', 'cup')


def targets(objective, sample):
    """Phrases, the boxes of the regions, and who shows what."""
    phrases, members, positives = objective.targets(sample)
    return (phrases, union_boxes(sample.gt_instances.bboxes,
                                 members), positives)


def test_a_caption_per_tile_and_joined_ones(make):
    torch.manual_seed(0)
    _, sample = make['mosaic'](0)
    phrases, boxes, positives = targets(GroundingObjective(), sample)
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
    phrases, boxes, positives = targets(objective, sample)
    assert phrases[:3] == ['cat', 'bus', 'dog']
    assert sorted(phrases[3:]) == ['cow', 'cup']
    assert torch.equal(boxes, sample.gt_instances.bboxes[[0, 1, 3]])
    assert positives.int().tolist() == [[1, 1, 0, 0, 0], [0, 1, 0, 0, 0],
                                        [0, 0, 1, 0, 0]]


def test_matched_by_text_a_tag_is_a_target_of_its_own(make):
    _, sample = make['mosaic'](0)
    objective = GroundingObjective(
        'tags', CLASSES, num_compositions=0, match='text')
    sample.set_metainfo(dict(tags=[[0, 3], [3], [], [1]]))
    phrases, boxes, positives = targets(objective, sample)
    assert phrases == ['cat', 'bus', 'dog']
    assert torch.equal(boxes, sample.gt_instances.bboxes[[0, 0, 1, 3]])
    assert positives.int().tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 0],
                                        [0, 0, 1]]
    sample.set_metainfo(dict(tags=[[], [], [], []]))
    phrases, boxes, positives = targets(objective, sample)
    assert (phrases, boxes.shape, positives.shape) == ([], (0, 4), (0, 0))


def test_a_tag_that_is_none_of_the_names(make):
    objective = GroundingObjective('tags', ['cat', 'dog'])
    _, sample = make['mosaic'](3)
    sample.set_metainfo(dict(tags=[[0], [1], [2], []]))
    with pytest.raises(ValueError, match=r'tags: expected 0 to 1, .* \[2\]'):
        targets(objective, sample)


def test_two_tiles_with_one_text(make):
    _, sample = make['mosaic'](0)
    sample.set_metainfo(
        dict(captions=[['a cat.'], ['A dog'], ['a cat'], ['.']]))
    phrases, boxes, positives = targets(
        GroundingObjective(num_compositions=0), sample)
    assert phrases == ['a cat', 'A dog']
    assert positives.int().tolist() == [[1, 0], [0, 1], [1, 0]]


def test_capitals_make_no_other_phrase(make):
    _, sample = make['mosaic'](0)
    sample.set_metainfo(
        dict(captions=[['A cat.'], ['A dog'], ['a cat'], ['TV']]))
    phrases, _, positives = targets(
        GroundingObjective(num_compositions=0), sample)
    assert phrases == ['A cat', 'A dog', 'TV']
    assert positives.int().tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 0],
                                        [0, 0, 1]]
    # build_vocabulary would refuse such names.
    names = ('Cat', 'TV', 'tv')
    objective = GroundingObjective(
        'tags', Vocabulary(names, names), num_negatives=2, num_compositions=0)
    sample.set_metainfo(dict(tags=[[1], [2], [], []]))
    phrases, _, positives = targets(objective, sample)
    assert phrases == ['TV', 'Cat']
    assert positives.int().tolist() == [[1, 0], [1, 0]]


def test_an_image_in_two_tiles_has_the_captions_of_both(make):
    """As a mosaic's partners, drawn from a cache, may come again."""
    _, sample = make['mosaic'](0)
    sample.set_metainfo(
        dict(
            captions=[['a cat'], ['a bus'], ['it sleeps'], ['a cup']],
            image_keys=[7, 8, 7, 9]))
    phrases, boxes, positives = targets(
        GroundingObjective(num_compositions=9), sample)
    assert phrases == ['a cat', 'a bus', 'it sleeps', 'a cup']
    assert positives[:4].int().tolist() == [[1, 0, 1, 0], [0, 1, 0, 0],
                                            [1, 0, 1, 0], [0, 0, 0, 1]]
    # The upper row of tiles shows the image too.
    tiles = sample.gt_instances.bboxes
    upper = torch.cat([tiles[0, :2], tiles[1, 2:]])
    row, = (boxes == upper).all(1).nonzero()
    assert positives[row].int().tolist() == [[1, 1, 1, 0]]


def test_captions_that_are_marks_are_not_drawn(make):
    _, sample = make['mosaic'](0)
    sample.set_metainfo(
        dict(captions=[['...', 'a cat', '?'], ['!'], ['.'], ['a bus']]))
    for seed in range(5):
        torch.manual_seed(seed)
        phrases, _, positives = targets(
            GroundingObjective(num_compositions=0), sample)
        assert phrases == ['a cat', 'a bus']
        assert positives.int().tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize('arguments, message', [
    (dict(texts='names'), "'captions', 'tags'"),
    (dict(texts='tags'), 'vocabulary'),
    (dict(num_compositions=-1), 'num_compositions'),
    (dict(match='query'), "'box', 'text'"),
    (dict(match='text'), 'num_compositions: expected 0 .* got 4'),
])
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        GroundingObjective(**arguments)
