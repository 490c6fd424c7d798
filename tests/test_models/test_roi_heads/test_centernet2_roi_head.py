# Licensed under the Apache License, Version 2.0.
import copy

import pytest
import torch
from mmdet.structures.bbox import bbox2roi
from mmengine.registry import MODELS
from mmengine.structures import InstanceData

META = dict(img_shape=(64, 64), ori_shape=(64, 64), scale_factor=(1., 1.))


@pytest.fixture
def detector(centernet2_cfg):
    torch.manual_seed(0)
    model = MODELS.build(centernet2_cfg)
    for head in model.roi_head.bbox_head:
        # Freshly initialised regressors move nothing.
        torch.nn.init.normal_(head.fc_reg.weight, std=.5)
    return model


def proposals(*counts):
    generator = torch.Generator().manual_seed(1)
    found = []
    for count in counts:
        corner = torch.rand(count, 2, generator=generator) * 30
        size = torch.rand(count, 2, generator=generator) * 20 + 10
        found.append(
            InstanceData(
                bboxes=torch.cat([corner, corner + size], 1),
                scores=torch.rand(count, generator=generator)))
    return found


def feats(images):
    generator = torch.Generator().manual_seed(2)
    return tuple(
        torch.randn(images, 16, 64 // s, 64 // s, generator=generator)
        for s in (8, 16, 32, 64))


@torch.no_grad()
def test_score_is_the_root_of_mean_stage_score_times_proposal(detector):
    """Every box by an explicit loop over stages and images."""
    head = detector.roi_head.eval()
    x, found = feats(2), proposals(3, 2)
    results = head.predict_bbox(x, [META] * 2, copy.deepcopy(found), None)
    for number, of_image in enumerate(found):
        boxes, mean = of_image.bboxes, 0
        for stage in range(3):
            rois = bbox2roi([boxes])
            rois[:, 0] = number
            logits, deltas = head.bbox_head[stage](
                head.bbox_roi_extractor[stage](x[:3], rois))
            mean = mean + logits.sigmoid() / 3
            boxes = head.bbox_head[stage].bbox_coder.decode(
                boxes, deltas, max_shape=(64, 64))
        expected = (mean * of_image.scores[:, None]).sqrt()
        torch.testing.assert_close(results[number].bboxes, boxes)
        torch.testing.assert_close(results[number].scores[:, :-1], expected)
        assert (results[number].scores[:, -1] == 0).all()
        assert (boxes - of_image.bboxes).abs().max() > 1


@torch.no_grad()
def test_prediction_at_the_original_size(detector):
    head = detector.roi_head.eval()
    meta = dict(META, ori_shape=(128, 128), scale_factor=(.5, .5))
    args = (feats(1), [meta], proposals(4), head.test_cfg)
    small = head.predict_bbox(*copy.deepcopy(args))[0]
    large = head.predict_bbox(*args, rescale=True)[0]
    assert len(large) == 10
    # mmcv's NMS keeps the same boxes at twice the size.
    torch.testing.assert_close(large.bboxes, small.bboxes * 2)
    torch.testing.assert_close(large.scores, small.scores)
    with_masks = head.predict_mask(args[0], [meta], [small], rescale=True)[0]
    assert with_masks.masks.shape == (10, 128, 128)
    torch.testing.assert_close(with_masks.bboxes, large.bboxes)


@pytest.mark.parametrize('counts', [(0, ), (0, 0), (2, 0), (0, 1)])
@torch.no_grad()
def test_images_without_proposals(detector, counts, make):
    head = detector.roi_head.eval()
    samples = [make['box'](i)[1] for i in range(len(counts))]
    results = head.predict(
        feats(len(counts)), proposals(*counts), samples, rescale=True)
    for count, result in zip(counts, results):
        assert (len(result) > 0) == (count > 0)
        assert result.masks.shape == (len(result), 64, 64)


def test_losses_of_three_stages_and_one_mask_head(detector, make):
    samples = [make['box'](i)[1] for i in (1, 2)]
    losses = detector.roi_head.loss(feats(2), proposals(9, 9), samples)
    assert {k
            for k in losses if 'loss' in k} == {
                's0.loss_cls', 's0.loss_bbox', 's0.loss_mask', 's1.loss_cls',
                's1.loss_bbox', 's2.loss_cls', 's2.loss_bbox'
            }
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    assert all(p.grad is not None and p.grad.isfinite().all()
               for p in detector.roi_head.parameters())
    assert len(detector.roi_head.mask_head) == 1


@pytest.mark.parametrize('num_proposals', [0, 3])
def test_no_ground_truth(detector, make, num_proposals):
    """Every parameter keeps its place in the graph."""
    sample = make['box'](1, num_boxes=0)[1]
    losses = detector.roi_head.loss(
        feats(1), proposals(num_proposals), [sample])
    total = sum(v for k, v in losses.items() if 'loss' in k)
    assert total.isfinite()
    total.backward()
    for name, param in detector.roi_head.named_parameters():
        assert param.grad is not None, name
    if num_proposals == 0:
        assert total == 0


def test_a_head_that_regresses_per_class(centernet2_cfg):
    centernet2_cfg.roi_head.bbox_head[1].reg_class_agnostic = False
    with pytest.raises(ValueError, match='bbox_head\\[1\\]'):
        MODELS.build(centernet2_cfg)


def test_the_whole_detector_trains_and_predicts(detector, make):
    batch = make['collate'](make['box'](1), make['box'](2, num_boxes=0))
    data = detector.data_preprocessor(copy.deepcopy(batch), True)
    losses = detector.train()(**data, mode='loss')
    assert {'rpn_loss_cls', 'rpn_loss_bbox', 's2.loss_cls'} <= set(losses)
    total, _ = detector.parse_losses(losses)
    total.backward()
    assert all(p.grad is not None for p in detector.parameters())
    for result in detector.eval().test_step(batch):
        found = result.pred_instances
        assert len(found) == 10
        assert found.masks.shape == (10, 64, 64)
        assert (found.scores >= 0).all() and (found.scores <= 1).all()
    outputs = detector(
        **detector.data_preprocessor(copy.deepcopy(batch), False),
        mode='tensor')
    assert [o.shape[1] for o in outputs[0]] == [6, 5, 1]
