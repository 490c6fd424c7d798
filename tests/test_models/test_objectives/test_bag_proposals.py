# Licensed under the Apache License, Version 2.0.
"""Which proposals get into a bag."""
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData

from mmdet_clim.models.objectives import LikelyObjects, TilesAlone

TILES = torch.tensor([[0., 0., 100., 100.], [100., 0., 200., 100.]])


def stage_of(boxes, scores, tiles=TILES):
    """The stage of one image with these proposals."""
    sample = DetDataSample()
    sample.gt_instances = InstanceData(bboxes=tiles)
    proposals = InstanceData(
        bboxes=torch.as_tensor(boxes).view(-1, 4),
        scores=torch.as_tensor(scores))
    return TilesAlone([sample], [proposals]).stages[0]


def choose(boxes, scores, tiles=TILES, **kwargs):
    found, image, owners = LikelyObjects(**kwargs)(
        stage_of(boxes, scores, tiles))
    assert not image.any()
    order = found[:, 0].argsort()
    return found[order].tolist(), owners[order].tolist()


def test_shape_and_size_are_relative_to_the_tile():
    boxes = [
        [1., 1., 41., 11.],  # four times as long as high: kept
        [1., 50., 42., 60.],  # a little longer
        [50., 50., 60., 60.],  # one percent of the tile's area: too small
        [150., 50., 161., 60.],  # a little more
        [30., 12., 40., 52.],  # four times as high as long: kept
        [50., 12., 60., 53.],  # a little higher
        [70., 70., 90., 90.],
    ]
    scores = [.99, .98, .97, .96, .95, .94, .93]
    assert choose(boxes,
                  scores) == ([boxes[i] for i in (0, 4, 6, 3)], [0, 0, 0, 1])
    # Of a tile of ten times the area, it is too small.
    wide = torch.tensor([[0., 0., 1000., 100.]])
    assert choose([boxes[3], [10., 10., 60., 60.]], [.97, .96],
                  wide) == ([[10., 10., 60., 60.]], [0])


def test_boxes_are_clamped_to_the_tile_that_holds_most_of_them():
    boxes = [[80., 20., 110., 40.], [90., 60., 130., 80.]]
    assert choose(boxes, [.9, .9]) == ([[80, 20, 100, 40], [100, 60, 130,
                                                            80]], [0, 1])
    # Less than a third of it lies in any tile.
    assert choose([[0., 80., 40., 200.]], [.9]) == ([], [])


def test_the_best_where_no_score_is_high():
    boxes = [[10., 10., 30., 30.], [60., 10., 80., 30.],
             [110., 10., 130., 30.], [150., 10., 170., 30.]]
    # In the first tile one is high, in the second none.
    assert choose(boxes, [.9, .8, .7, .6]) == ([boxes[0], boxes[2]], [0, 1])
    # The best of all, whatever its shape.
    long = [101., 1., 190., 5.]
    assert choose([long, *boxes[2:]], [.99, .6, .5]) == ([long], [1])


def test_suppression_is_within_a_tile():
    boxes = [[10., 10., 50., 50.], [14., 14., 54., 54.],
             [114., 14., 154., 54.], [60., 60., 90., 90.]]
    kept = ([boxes[0], boxes[3], boxes[2]], [0, 0, 1])
    assert choose(boxes, [.99, .98, .97, .96]) == kept


def test_at_most_so_many_at_random():
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(60, 2, generator=generator) * torch.tensor([180., 80.])
    stage = stage_of(
        torch.cat([corner, corner + 15], 1), torch.linspace(.99, .9, 60))
    every, _, _ = LikelyObjects(max_objects=60)(stage)
    overlap = bbox_overlaps(every, every).fill_diagonal_(0)
    assert overlap.max() <= .2
    seen = set()
    for _ in range(20):
        boxes, _, owners = LikelyObjects(max_objects=3)(stage)
        assert owners.bincount().tolist() == [3, 3]
        assert ((boxes >= TILES[owners].repeat(1, 1) -
                 1e-4)[:, :2]).all() and (boxes <= 200).all()
        seen |= {tuple(box) for box in boxes.tolist()}
    assert seen <= {tuple(box) for box in every.tolist()}
    assert len(seen) > 12
    everything, _, _ = LikelyObjects(max_objects=None)(stage)
    assert {tuple(box)
            for box in everything.tolist()
            } == {tuple(box)
                  for box in every.tolist()}
    # Only the best few of a tile are looked at.
    _, _, owners = LikelyObjects(max_considered=2)(stage)
    assert owners.bincount().max() <= 2


def test_images_are_chosen_from_apart():
    """Boxes of two images at one place do not suppress each other."""
    samples, proposals = [], []
    for number, score in enumerate([.95, .9, .99]):
        sample = DetDataSample()
        sample.gt_instances = InstanceData(bboxes=TILES[:1 + number % 2])
        samples.append(sample)
        proposals.append(
            InstanceData(
                bboxes=torch.tensor([[10., 10., 50., 50.]]),
                scores=torch.tensor([score])))
    stage, = TilesAlone(samples, proposals).stages
    boxes, image, tile = LikelyObjects()(stage)
    assert boxes.tolist() == [[10, 10, 50, 50]] * 3
    assert (image.tolist(), tile.tolist()) == ([0, 1, 2], [0, 0, 0])


def test_no_proposals():
    assert choose([], []) == ([], [])
