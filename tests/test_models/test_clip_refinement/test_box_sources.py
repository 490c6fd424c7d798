# Licensed under the Apache License, Version 2.0.
import json

import pytest
import torch
from mmdet.structures import DetDataSample

from mmdet_clim.models.clip_refinement import FileBoxes, GridBoxes, RandomBoxes


def sample(**metainfo):
    return DetDataSample(metainfo={
        **dict(img_id=7, img_shape=(60, 90), ori_shape=(120, 180)),
        **metainfo
    })


def test_grid_boxes_are_the_cells_of_a_grid():
    torch.manual_seed(0)
    seen = set()
    for _ in range(50):
        boxes = GridBoxes(max_rows=3, max_cols=2)(sample())
        extent = boxes[:, 2:] - boxes[:, :2]
        # They cover the image once.
        assert extent.prod(1).sum().item() == pytest.approx(60 * 90)
        assert boxes.amax(0)[2:].tolist() == [90, 60]
        seen.add(
            (round(90 / extent[0, 0].item()), round(60 / extent[0, 1].item())))
    assert seen == {(c, r) for c in (1, 2) for r in (1, 2, 3)}


def test_random_boxes_keep_their_limits():
    torch.manual_seed(0)
    source = RandomBoxes(num_boxes=500, area=(.04, .25), aspect_ratio=(.5, 2))
    boxes = source(sample())
    width, height = (boxes[:, 2:] - boxes[:, :2]).unbind(1)
    area = width * height / (60 * 90)
    assert boxes.shape == (500, 4) and boxes.min() >= 0
    assert (boxes[:, 2:].amax(0) <= torch.tensor([90.01, 60.01])).all()
    assert .039 < area.min() < .06 and .23 < area.max() < .251
    ratio = width / height
    assert .49 < ratio.min() < .52 and 1.92 < ratio.max() < 2.01
    # As often wide as high.
    assert ratio.log().mean().abs() < .1


def test_boxes_from_a_file_are_scaled_sorted_and_flipped(tmp_path):
    file = tmp_path / 'proposals.json'
    file.write_text(
        json.dumps([
            dict(image_id=7, bbox=[0, 0, 20, 40], score=.1),
            dict(image_id=7, bbox=[20, 40, 60, 20], score=.9),
            dict(image_id=7, bbox=[1, 1, 2, 2], score=.05),
            dict(image_id=8, bbox=[1, 1, 2, 2], score=.5),
        ]))
    source = FileBoxes(str(file), num_boxes=2)
    assert source(sample()).tolist() == [[10, 20, 40, 30], [0, 0, 10, 20]]
    flipped = source(sample(flip=True, flip_direction='horizontal'))
    assert flipped.tolist() == [[50, 20, 80, 30], [80, 0, 90, 20]]
    # The file is not changed by it, and does not know all images.
    assert source(sample()).tolist() == [[10, 20, 40, 30], [0, 0, 10, 20]]
    assert source(sample(img_id=9)).tolist() == [[0, 0, 90, 60]]
    with pytest.raises(ValueError, match='vertical'):
        source(sample(flip=True, flip_direction='vertical'))


def test_wrong_arguments_and_files(tmp_path):
    for wrong in (lambda: GridBoxes(0), lambda: RandomBoxes(0),
                  lambda: RandomBoxes(area=(.5, .1)),
                  lambda: RandomBoxes(aspect_ratio=(0, 1))):
        with pytest.raises(ValueError):
            wrong()
    file = tmp_path / 'wrong.json'
    file.write_text('{"images": []}')
    with pytest.raises(ValueError, match='list of boxes'):
        FileBoxes(str(file))
    file.write_text('[{"image_id": 1, "bbox": [0, 0, 1, 1]}]')
    with pytest.raises(ValueError, match="entry 0.*'score'"):
        FileBoxes(str(file))
    file.write_text('[{"image_id": 1, "bbox": [0, 0, 9, -1], "score": 1}]')
    with pytest.raises(ValueError, match=r'entry 0.*\[0, 0, 9, -1\]'):
        FileBoxes(str(file))
