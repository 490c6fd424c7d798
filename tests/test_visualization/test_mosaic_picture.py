# Licensed under the Apache License, Version 2.0.
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmdet_clim.registry import MODELS
from mmdet_clim.visualization import composed_boxes, draw_mosaic
from mmdet_clim.visualization.canvas import COLOURS


def packed(grid=(1, 2), size=(32, 64), **changed):
    rows, columns = grid
    tiles = rows * columns
    height, width = size[0] / rows, size[1] / columns
    boxes = torch.tensor(
        [[c * width, r * height, (c + 1) * width, (r + 1) * height]
         for r in range(rows) for c in range(columns)])
    metainfo = dict(
        mosaic_grid=grid,
        captions=[['a dog']] * tiles,
        tags=[[0]] * tiles,
        image_ids=list(range(tiles)),
        image_keys=list(range(tiles)))
    metainfo.update(changed)
    inputs = torch.full((3, *size), 114, dtype=torch.uint8)
    return inputs, DetDataSample(
        metainfo=metainfo,
        gt_instances=InstanceData(
            bboxes=boxes, labels=torch.zeros(tiles, dtype=torch.int64)))


def near(picture, point, colour):
    """Whether the colour is within three pixels of (x, y)."""
    x, y = point
    part = picture[max(0, y - 3):y + 4, max(0, x - 3):x + 4]
    return (part == colour).all(-1).any()


def test_boxes_and_texts():
    inputs, sample = packed()
    picture = draw_mosaic(inputs, sample, ['dog'], side=640)
    assert picture.shape == (320, 1280, 3) and picture.dtype == np.uint8
    # the right edge of tile 1 and the left edge of tile 2, scaled by ten
    assert near(picture, (318, 200), COLOURS[0])
    assert near(picture, (321, 200), COLOURS[1])
    assert picture[200, 100].tolist() == [114] * 3
    # text in both cells of the page, in the colour of its tile
    for left, colour in ((640, COLOURS[0]), (960, COLOURS[1])):
        cell = picture[5:150, left + 5:left + 315]
        assert (cell == colour).all(-1).any()


def test_text_changes_its_cell_only():
    plain = draw_mosaic(*packed(), ['dog'], side=640)
    other = draw_mosaic(
        *packed(captions=[['a dog'], ['two cats on a couch']]), ['dog'],
        side=640)
    changed = (plain != other).any(-1)
    assert changed.any() and not changed[:, :960].any()


def test_composed_regions():
    inputs, sample = packed(grid=(2, 2))
    plain = draw_mosaic(inputs, sample, side=640)
    composed = draw_mosaic(
        inputs, sample, composed=torch.tensor([[8., 8., 40., 24.]]), side=640)
    ys, xs = (plain != composed).any(-1).nonzero()
    assert abs(xs.min() - 80) < 6 and abs(xs.max() - 400) < 6
    assert abs(ys.min() - 80) < 6 and abs(ys.max() - 240) < 6
    assert (plain == draw_mosaic(
        inputs, sample, composed=torch.zeros(0, 4), side=640)).all()


LOSS = dict(type='mmdet_clim.CLIMRegionLoss')


@pytest.mark.parametrize('objective', [
    dict(type='mmdet_clim.RegionCaptionObjective'),
    dict(
        type='mmdet_clim.RegionTagObjective',
        vocabulary=['dog'],
        regions='proposals'),
    dict(type='mmdet_clim.BagOfRegionsObjective', bags=dict(word_dim=8)),
])
def test_rectangles_of_the_objectives(objective):
    built = MODELS.build(dict(objective, loss=LOSS, num_compositions=9))
    _, sample = packed(grid=(1, 3), size=(30, 90))
    # All there are of three tiles in a row: two pairs and the three.
    assert composed_boxes([built, built], sample).tolist() == [[0, 0, 60, 30],
                                                               [0, 0, 90, 30],
                                                               [30, 0, 90, 30]]
    assert composed_boxes([], sample).shape == (0, 4)
    # A captioned image is one tile.
    assert composed_boxes([built], packed((1, 1))[1]).shape == (0, 4)


@pytest.mark.parametrize('objective', [
    dict(
        type='mmdet_clim.RegionTagObjective',
        vocabulary=['dog', 'cat'],
        regions='best',
        num_compositions=0,
        loss=LOSS),
    dict(
        type='mmdet_clim.RegionPseudoLabelObjective',
        vocabulary=['dog', 'cat'],
        loss=LOSS),
])
def test_objectives_that_read_regions_to_choose_them(objective):
    built = MODELS.build(objective)
    captions = MODELS.build(
        dict(
            type='mmdet_clim.RegionCaptionObjective',
            loss=LOSS,
            num_compositions=9))
    _, sample = packed(grid=(1, 2), size=(30, 60), tags=[[0], [1]])
    assert composed_boxes([built], sample).shape == (0, 4)
    assert composed_boxes([built, captions],
                          sample).tolist() == [[0, 0, 60, 30]]


def test_untagged_rectangles_are_left_out():
    built = MODELS.build(
        dict(
            type='mmdet_clim.RegionTagObjective',
            vocabulary=['dog'],
            loss=LOSS,
            num_compositions=9))
    _, sample = packed(grid=(1, 3), size=(30, 90), tags=[[0], [], []])
    assert composed_boxes([built], sample).tolist() == [[0, 0, 60, 30],
                                                        [0, 0, 90, 30]]


def test_edges_in_one_place_are_drawn_apart():
    inputs, sample = packed(grid=(2, 2))
    box = [8., 8., 40., 24.]
    once, twice = (
        draw_mosaic(
            inputs, sample, composed=torch.tensor([box] * n), side=640)
        for n in (1, 2))
    ys, xs = (once != twice).any(-1).nonzero()
    assert xs.min() > 80 and ys.min() > 80 and xs.max() < 400


@pytest.mark.parametrize('grid', [(1, 1), (3, 2), (4, 4)])
def test_long_texts_on_any_grid(grid):
    tiles = grid[0] * grid[1]
    captions = [['a very long caption ' * 20] * 5 for _ in range(tiles)]
    picture = draw_mosaic(
        *packed(grid, (31, 47), captions=captions, tags=[[]] * tiles),
        side=200)
    assert picture.shape == (132, 400, 3)


@pytest.mark.parametrize('changed, word', [
    (dict(mosaic_grid=(2, 2)), 'mosaic_grid.*4 tiles'),
    (dict(captions=[['a']]), 'mosaic_grid.*1 captions'),
    (dict(tags=[[0], [7]]), 'tags.*7'),
])
def test_wrong_metainfo(changed, word):
    inputs, sample = packed()
    sample.set_metainfo(changed)
    with pytest.raises(ValueError, match=word):
        draw_mosaic(inputs, sample, ['dog'])


def test_sample_without_texts():
    with pytest.raises(ValueError, match='mosaic_grid'):
        draw_mosaic(packed()[0], DetDataSample())
