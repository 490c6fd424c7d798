# Licensed under the Apache License, Version 2.0.
import copy

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmdet_clim.models.objectives.old_words import divergence
from mmdet_clim.models.region_readers import build_region_reader
from mmdet_clim.registry import MODELS


def test_the_divergence():
    wanted = torch.tensor([[0.5, -2.0], [3.0, 0.0]])
    logits = torch.tensor([[1.0, -1.0], [3.0, 0.5]], requires_grad=True)
    p, q = wanted.sigmoid(), logits.sigmoid()
    by_hand = (p * (p / q).log() + (1 - p) * ((1 - p) /
                                              (1 - q)).log()).sum(1).mean()
    torch.testing.assert_close(divergence(logits, wanted), by_hand)
    assert divergence(wanted, wanted).item() == pytest.approx(0, abs=1e-6)
    none = divergence(logits[:0], wanted[:0])
    assert none == 0
    none.backward()


@pytest.fixture
def wrapped(clim_cfg, detector_cfg, tmp_path):
    """A CLIMDetector that keeps two words, and the original weights."""
    torch.manual_seed(0)
    original = MODELS.build(copy.deepcopy(detector_cfg))
    file = tmp_path / 'original.pth'
    torch.save(dict(state_dict=original.state_dict()), file)
    clim_cfg.objectives = dict(
        old=dict(
            type='mmdet_clim.OldWordsObjective',
            detector=detector_cfg,
            checkpoint=str(file),
            vocabulary=['cat', 'bus'],
            templates=('{}', ),
            num_regions=4))
    clim_cfg.branches = dict(mosaic=['old'])
    model = MODELS.build(clim_cfg)
    model.detector.load_state_dict(original.state_dict())
    return model


def losses(model):
    torch.manual_seed(1)
    images = torch.randn(2, 3, 64, 64)
    samples = []
    for _ in range(2):
        sample = DetDataSample(
            metainfo=dict(img_shape=(64, 64), batch_input_shape=(64, 64)))
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[0., 0., 64., 64.]]),
            labels=torch.zeros(1).long())
        samples.append(sample)
    return model.branch_loss('mosaic', images, samples)


def test_nothing_is_lost_at_first_and_something_after(wrapped):
    wrapped.train()
    found = losses(wrapped)
    assert found['mosaic.old.loss'].item() == pytest.approx(0, abs=1e-5)
    assert found['mosaic.old.kept'] == 100
    projection = wrapped.detector.roi_head.bbox_head.fc_cls.projection
    with torch.no_grad():
        projection.weight.mul_(-1)
        wrapped.detector.roi_head.bbox_head.fc_cls.logit_bias.add_(20)
    found = losses(wrapped)
    assert found['mosaic.old.loss'] > 1e-3
    found['mosaic.old.loss'].backward()
    assert projection.weight.grad.abs().sum() > 0
    teacher = wrapped.objectives['old'].teacher(torch.device('cpu'))
    assert not teacher.training
    assert all(p.grad is None for p in teacher.parameters())
    # Neither trained nor saved.
    assert not list(wrapped.objectives['old'].parameters())
    assert not any('old' in name for name in wrapped.state_dict())


def test_the_loss_is_that_of_the_regions_read(wrapped):
    """By the readings of both detectors, one region after another."""
    wrapped.train()
    classifier = wrapped.detector.roi_head.bbox_head.fc_cls
    with torch.no_grad():
        classifier.projection.weight.add_(
            0.1 * torch.randn_like(classifier.projection.weight))
        classifier.logit_bias.add_(15)
    objective = wrapped.objectives['old']
    teacher = objective.teacher(torch.device('cpu'))
    torch.manual_seed(1)
    images = torch.randn(2, 3, 64, 64)
    reader = build_region_reader(None, teacher, 8)
    found = losses(wrapped)['mosaic.old.loss']
    with torch.no_grad():
        proposals = reader.propose(teacher,
                                   reader.extract_feat(teacher, images))
        sides = []
        for detector in (teacher, wrapped.detector):
            stage, = reader.stages(detector,
                                   reader.extract_feat(detector, images))
            rows = []
            for image, of_image in enumerate(proposals):
                for box in of_image.bboxes[:4]:
                    region = torch.cat([torch.tensor([float(image)]), box])
                    logits = detector.roi_head.bbox_head.fc_cls.score(
                        stage.read(region[None]))
                    # 'cat' and 'bus' of its five classes.
                    rows.append(logits[0, [0, 3]])
            sides.append(torch.stack(rows))
    before, after = sides
    torch.testing.assert_close(
        found, divergence(after, before), rtol=1e-3, atol=1e-5)


def test_what_it_can_not_keep(clim_cfg, detector_cfg, fcos_cfg):
    objective = dict(
        type='mmdet_clim.OldWordsObjective',
        detector=detector_cfg,
        checkpoint='x.pth',
        vocabulary=['cat'],
        templates=('{}', ))
    with pytest.raises(ValueError, match='num_regions: expected at least 1'):
        MODELS.build(dict(objective, num_regions=0))
    with pytest.raises(ValueError, match='loss_weight: expected at least 0'):
        MODELS.build(dict(objective, loss_weight=-1))
    clim_cfg.objectives = dict(old=objective)
    clim_cfg.branches = dict(mosaic=['old'])
    clim_cfg.detector = fcos_cfg
    clim_cfg.detector.pop('bbox_head', None)
    clim_cfg.detector.bbox_head = dict(
        type='mmdet.FCOSHead', num_classes=3, in_channels=16, feat_channels=32)
    with pytest.raises(TypeError, match='OldWordsObjective compares what a'):
        MODELS.build(clim_cfg)
