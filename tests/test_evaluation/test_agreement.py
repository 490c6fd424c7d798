# Licensed under the Apache License, Version 2.0.
import pytest
import torch
from mmengine.structures import InstanceData

from mmdet_clim.evaluation.agreement import (
    agreement,
    disagreement,
    match_detections,
    of_labels,
    unnamed_detections,
)
from mmdet_clim.evaluation.class_thresholds import class_thresholds


def instances(*rows):
    """Label, score and left edge of boxes of 10 x 10 pixels."""
    return InstanceData(
        bboxes=torch.tensor([[x, 0., x + 10, 10.]
                             for _, _, x in rows]).reshape(-1, 4),
        scores=torch.tensor([float(s) for _, s, _ in rows]),
        labels=torch.tensor([label for label, _, _ in rows]).long())


def test_pairs_of_detections():
    before = instances((0, .9, 0), (0, .8, 2), (1, .7, 50))
    # IoU of boxes that are shifted by d: (10 - d) / (10 + d).
    after = instances((0, .5, 1), (1, .6, 0), (1, .4, 52))
    pairs = match_detections(before, after)
    assert [(p.before, p.after) for p in pairs] == [(0, 0), (2, 2)]
    assert [p.iou for p in pairs] == pytest.approx([9 / 11, 8 / 12])
    assert match_detections(before, after, 0.7)[-1].before == 0
    assert match_detections(before, instances()) == []


def test_agreement_of_two_detectors():
    before = [instances((0, .9, 0), (1, .7, 50), (1, .2, 90)), instances()]
    after = [instances((0, .5, 1), (0, .6, 200)), instances((1, .9, 0))]
    found = agreement(before, after, 0.3)
    assert found == dict(
        before=2,
        after=3,
        found_again=0.5,
        f1=pytest.approx(2 / 5),
        iou=pytest.approx(9 / 11),
        score_change=pytest.approx(-.4))
    assert disagreement(before[0], after[0], 0.3) == 2
    assert agreement([instances()], [instances()], 0.3) == dict(
        before=0,
        after=0,
        found_again=None,
        f1=None,
        iou=None,
        score_change=None)
    same = agreement(before, before, 0.3)
    assert same['found_again'] == same['f1'] == same['iou'] == 1.0
    assert of_labels(before[0], [1]).scores.tolist() == pytest.approx([.7, .2])
    assert len(of_labels(before[0], [])) == 0


def test_detections_of_what_no_text_names():
    found = [
        instances((0, .9, 0), (0, .4, 50), (1, .9, 0), (2, .9, 0)),
        instances((0, .9, 0), (1, .5, 0))
    ]
    counts, images = unnamed_detections(found, [[1], [0]], [.5, .5])
    # Of class 0 in the first image and class 1 in the second; 2 is no class.
    assert counts == {0: 1, 1: 1}
    assert images == {0: 1, 1: 1}
    counts, images = unnamed_detections(found, [[], []], [.3, .85])
    assert counts == {0: 3, 1: 1} and images == {0: 2, 1: 2}


def test_thresholds_of_classes():
    truth = [
        instances((0, 1, 0), (0, 1, 50)),
        instances((0, 1, 0), (1, 1, 0), (2, 1, 0))
    ]
    found = [
        # Right; a second box of the same object; right.
        instances((0, .9, 0), (0, .6, 1), (0, .5, 50), (1, .9, 30)),
        # Wrong.
        instances((0, .3, 80), (3, .9, 0))
    ]
    chosen = class_thresholds(found, truth, ['a', 'b', 'c', 'd'])
    # At .9: 2 * 1 / (1 + 3); at .6: 2 / 5; at .5: 4 / 6; at .3: 4 / 7.
    assert chosen['a'] == dict(
        threshold=pytest.approx(.5),
        f1=pytest.approx(2 / 3),
        precision=pytest.approx(2 / 3),
        recall=pytest.approx(2 / 3),
        boxes=3)
    nothing = dict(threshold=None, f1=None, precision=None, recall=None)
    # None is right, none is found, none is there.
    assert chosen['b'] == dict(nothing, boxes=1)
    assert chosen['c'] == dict(nothing, boxes=1)
    assert chosen['d'] == dict(nothing, boxes=0)
    # Of one score, all or none.
    tied = class_thresholds([instances((0, .5, 0), (0, .5, 30))], [truth[0]],
                            ['a'])
    assert tied['a']['f1'] == pytest.approx(2 / 4)
