# Licensed under the Apache License, Version 2.0.
import copy

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmdet_clim.models.objectives.old_words.responses import (
    Responses,
    divergence,
)
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


def test_the_divergence_of_words_of_tokens():
    """That of a word is the mean of its tokens'."""
    wanted = torch.tensor([[0.5, -2.0, 1.0]])
    logits = torch.tensor([[1.0, -1.0, 0.0]])
    words = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    of_tokens = [
        divergence(logits[:, i:i + 1], wanted[:, i:i + 1]) for i in range(3)
    ]
    torch.testing.assert_close(
        divergence(logits, wanted, words),
        (of_tokens[0] + of_tokens[1]) / 2 + of_tokens[2])
    assert Responses(logits, wanted, words, weight=2.).loss() == \
        2 * divergence(logits, wanted, words)


def test_what_is_of_one_mind():
    """Of places in which the original is surer than even, one of two."""
    words = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    wanted = torch.tensor([[3., 3., 0.], [-3., 0., 1.], [3., -3.5, -1.]])
    # Of the last no word has more than 0.5: it is not sure.
    logits = torch.tensor([[1., 2., 1.5], [-3., 0., 1.], [-3., -3., 3.]])
    assert Responses(logits, wanted, words).kept() == 100 / 2
    assert Responses(logits, wanted - 9, words).kept() == 100
    assert Responses(logits[:0], wanted[:0], words).kept() == 100


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


def test_the_queries_of_a_detr(clim_cfg, detr_cfg, tmp_path):
    """By its head's own logits, with the words as its classes."""
    torch.manual_seed(0)
    original = MODELS.build(copy.deepcopy(detr_cfg))
    original.init_weights()
    file = tmp_path / 'original.pth'
    torch.save(dict(state_dict=original.state_dict()), file)
    clim_cfg.objectives = dict(
        old=dict(
            type='mmdet_clim.OldWordsObjective',
            detector=copy.deepcopy(detr_cfg),
            checkpoint=str(file),
            vocabulary=['cat', 'bus'],
            templates=('{}', ),
            num_regions=4))
    clim_cfg.branches = dict(mosaic=['old'])
    clim_cfg.detector = copy.deepcopy(detr_cfg)
    model = MODELS.build(clim_cfg)
    model.detector.load_state_dict(original.state_dict())
    model.train()
    assert losses(model)['mosaic.old.loss'].item() == pytest.approx(
        0, abs=1e-5)
    with torch.no_grad():
        for layer in model.detector.bbox_head.class_layers:
            layer.projection.weight.mul_(-1)
            layer.logit_bias.add_(2)
    found = losses(model)['mosaic.old.loss']
    found.backward()
    assert model.detector.decoder.layers[0].ffn.layers[1].weight.grad.abs(
    ).sum() > 0
    sides = []
    for detector in (original, model.detector):
        detector.eval()
        detector.bbox_head.set_vocabulary(['cat', 'bus'])
        torch.manual_seed(1)
        images = torch.randn(2, 3, 64, 64)
        metas = [
            DetDataSample(
                metainfo=dict(img_shape=(64, 64), batch_input_shape=(64, 64)))
        ] * 2
        with torch.no_grad():
            scores, _ = detector.bbox_head(**detector.forward_transformer(
                detector.extract_feat(images), metas))
        sides.append(scores[-1])
    wanted = sum(
        divergence(after[place][None], before[place][None]).item()
        for before, after in zip(*sides)
        for place in before.amax(1).argsort(descending=True)[:4]) / 8
    assert wanted > 1e-3
    assert found.item() == pytest.approx(wanted, rel=1e-3)
    # Its encoder's choice is not that of a DINO, wherever regions are read.
    for source in 'query', 'encoder':
        clim_cfg.detector = dict(copy.deepcopy(detr_cfg), as_two_stage=True)
        clim_cfg.region_reader = dict(
            type='mmdet_clim.DenseFeatureReader', source=source)
        with pytest.raises(
                TypeError, match='queries .*begin alike.* two-stage Def'):
            MODELS.build(clim_cfg)


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
