# Licensed under the Apache License, Version 2.0.
import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

from mmdet_clim.visualization import draw_boxes, draw_detections
from mmdet_clim.visualization.detections import BASE_COLOUR, NOVEL_COLOUR

NAMES = ['car', 'dog']
GREY = np.full((100, 100, 3), 128, np.uint8)


def instances(boxes, labels, scores=None):
    found = InstanceData(
        bboxes=torch.tensor(boxes).float().reshape(-1, 4),
        labels=torch.tensor(labels).long())
    if scores is not None:
        found.scores = torch.tensor(scores)
    return found


def has(picture, colour):
    return (picture == colour).all(-1).any()


def test_base_and_novel_colours():
    for label, colour, other in ((0, BASE_COLOUR, NOVEL_COLOUR),
                                 (1, NOVEL_COLOUR, BASE_COLOUR)):
        picture = draw_boxes(
            GREY,
            instances([[20, 40, 60, 80]], [label]),
            NAMES, ['dog'],
            side=400)
        assert picture.shape == (400, 400, 3)
        assert has(picture, colour) and not has(picture, other)
        # the lower edge of the box, scaled by four
        assert (picture[320, 100] == colour).all()


def test_score_threshold():
    found = instances([[20, 40, 60, 80], [0, 0, 9, 9]], [0, 1], [.2, .4])
    picture = draw_boxes(GREY, found, NAMES, ['dog'], score_thr=.3)
    assert has(picture, NOVEL_COLOUR) and not has(picture, BASE_COLOUR)


def test_wrong_boxes_are_dashed():
    found = instances([[20, 40, 60, 80], [20, 40, 60, 80]], [0, 1], [.5, .6])
    found.correct = torch.tensor([True, False])
    picture = draw_boxes(GREY, found[:1], NAMES, ['dog'], side=400)
    # the lower edge of the box, scaled by four
    assert (picture[320, 80:240] == BASE_COLOUR).all()
    picture = draw_boxes(GREY, found[1:], NAMES, ['dog'], side=400)
    edge = (picture[320, 80:240] == NOVEL_COLOUR).all(-1)
    assert 40 < edge.sum() < 120


def test_no_boxes():
    picture = draw_boxes(GREY, instances([], [], []), NAMES, side=100)
    assert (picture == GREY).all()


def test_wrong_label():
    with pytest.raises(ValueError, match='labels.*2 class names'):
        draw_boxes(GREY, instances([[0, 0, 9, 9]], [2]), NAMES)


def test_grid_of_models():
    truth = instances([[20, 40, 60, 80]], [1])
    picture = draw_detections(
        [GREY, GREY[:50]], [truth, truth], {
            'finds nothing': [instances([], [], [])] * 2,
            'finds it': [instances([[20, 40, 60, 80]], [1], [.01])] * 2
        },
        NAMES, ['dog'],
        side=200)
    # three columns of 200 with gaps of 8; rows of 200 and 100
    assert picture.shape[1] == 3 * 208 + 8
    assert 300 < picture.shape[0] < 420
    images = picture[34:234]
    columns = [images[:, 8 + c * 208:208 + c * 208] for c in range(3)]
    assert [has(c, NOVEL_COLOUR) for c in columns] == [True, False, True]
    # Without a truth, no column of it.
    alone = draw_detections([GREY],
                            None,
                            dict(model=[instances([], [], [])]),
                            NAMES,
                            side=200)
    assert alone.shape[1] == 208 + 8


def test_counts_differ():
    truth = instances([], [])
    with pytest.raises(ValueError, match='images.*at least one'):
        draw_detections([], [], {}, NAMES)
    with pytest.raises(ValueError, match='model.*expected 1'):
        draw_detections([GREY], [truth], dict(model=[truth] * 2), NAMES)
