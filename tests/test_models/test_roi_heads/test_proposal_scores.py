# Licensed under the Apache License, Version 2.0.
import copy

import pytest
import torch
from mmdet.models.roi_heads import StandardRoIHead
from mmengine.registry import MODELS
from mmengine.structures import InstanceData

from mmdet_clim.models.roi_heads import select_detections

META = dict(img_shape=(64, 64), scale_factor=(2., 2.))


def build(detector_cfg, **kwargs):
    cfg = copy.deepcopy(detector_cfg)
    cfg.roi_head.update(type='mmdet_clim.ProposalScoreRoIHead', **kwargs)
    torch.manual_seed(0)
    return MODELS.build(cfg).eval()


@pytest.fixture
def inputs():
    torch.manual_seed(1)
    proposals = InstanceData(
        bboxes=torch.tensor([[0., 0., 20., 20.], [30., 30., 60., 60.]]),
        scores=torch.tensor([.81, .25]))
    return [torch.randn(1, 16, 4, 4)], [META], [proposals]


def test_scores_are_a_weighted_geometric_mean(detector_cfg, inputs):
    head = build(detector_cfg).roi_head
    found = head.predict_bbox(*inputs, None, rescale=False)[0]
    plain = StandardRoIHead.predict_bbox(head, *inputs, None)[0]
    torch.testing.assert_close(found.bboxes, plain.bboxes)
    expected = (plain.scores * torch.tensor([[.81], [.25]])).sqrt()
    torch.testing.assert_close(found.scores, expected)
    # With a weight of 0 nothing but the class counts.
    head = build(detector_cfg, proposal_weight=0.).roi_head
    found = head.predict_bbox(*inputs, None)[0]
    torch.testing.assert_close(found.scores, plain.scores)


def test_the_best_are_kept_in_the_original_image(detector_cfg, inputs):
    head = build(detector_cfg).roi_head
    every = head.predict_bbox(*inputs, None, rescale=True)[0]
    found = head.predict_bbox(*inputs, head.test_cfg, rescale=True)[0]
    # Both boxes lie apart, so each class keeps both; 10 of 2 x 5 are kept.
    assert len(found) == 10
    torch.testing.assert_close(
        found.scores, every.scores[:, :5].flatten().sort(descending=True)[0])
    assert found.bboxes.max() <= 32
    assert found.bboxes[0].tolist() in every.bboxes.tolist()


def test_an_image_without_proposals(detector_cfg, inputs):
    head = build(detector_cfg).roi_head
    x, metas, _ = inputs
    none = [InstanceData(bboxes=torch.zeros(0, 4), scores=torch.zeros(0))]
    assert len(head.predict_bbox(x, metas, none, head.test_cfg)[0]) == 0


def test_selected_boxes_are_scaled_back():
    boxes, scores = torch.tensor([[2., 4., 6., 8.]]), torch.tensor([[.5, 0.]])
    found = select_detections(boxes, scores, None, (2., 4.))
    assert found.bboxes.tolist() == [[1., 1., 3., 2.]]


def test_a_weight_of_one_is_refused(detector_cfg):
    with pytest.raises(ValueError, match='proposal_weight: .* got 1'):
        build(detector_cfg, proposal_weight=1.)
