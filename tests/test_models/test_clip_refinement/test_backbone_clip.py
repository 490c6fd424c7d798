# Licensed under the Apache License, Version 2.0.
"""CLIM on a CLIP that is no open_clip's: a frozen backbone and any texts."""
import mmdet_clim  # noqa: F401  isort: skip
import copy

import numpy as np
import pytest
import torch
from mmdet.utils import register_all_modules

from mmdet_clim.engine.hooks import WeightAveragingHook
from mmdet_clim.models.clip_refinement import objectives
from mmdet_clim.registry import MODELS

CLASSES = ['cat', 'dog', 'cow']


@pytest.fixture(scope='module')
def texts(tmp_path_factory):
    path = tmp_path_factory.mktemp('texts') / 'texts.npz'
    names = [*CLASSES, *(f'caption {i}' for i in range(5))]
    np.savez(
        path,
        names=np.array(names),
        vectors=np.random.default_rng(0).normal(size=(8, 12)))
    return str(path)


@pytest.fixture
def cfg(texts):
    register_all_modules()
    return dict(
        type='mmdet_clim.CLIMOnCLIP',
        image_tower=dict(
            type='mmdet_clim.BackboneTower',
            backbone=dict(
                type='mmdet_clim.TimmBackbone',
                model='test_resnet',
                out_indices=(1, 2, 3),
                frozen=True),
            embed_dim=12,
            hidden=16,
            image_size=32),
        text_encoder=dict(
            type='mmdet_clim.PrecomputedTextEncoder', file=texts),
        unlocked_blocks='all',
        image_size=(64, 64),
        vocabulary=CLASSES,
        templates=('{}', ),
        region_ways=('roi', 'crop'),
        temperature=20.,
        objectives=dict(
            clim=dict(
                type='mmdet_clim.MosaicTextObjective', grids=((1, 1), (2,
                                                                       2)))))


def captions(numbers):
    return [f'caption {n}' for n in numbers]


def test_the_head_learns_and_the_backbone_does_not(cfg, make_batch):
    torch.manual_seed(0)
    model = MODELS.build(cfg).train()
    assert {n
            for n, p in model.named_parameters() if p.requires_grad} == {
                *(f'image_tower.visual.{n}'
                  for n, _ in model.image_tower.visual.named_parameters()),
                'objectives.clim.region_loss.log_temperature'
            }
    before = copy.deepcopy(model.image_tower.backbone.network.state_dict())
    data = make_batch(range(5), captions=captions(range(5)))
    losses = model(**model.data_preprocessor(data, True), mode='loss')
    losses['clim.loss'].backward()
    head = model.image_tower.visual
    assert all(p.grad.abs().sum() > 0 for p in head.parameters())
    after = model.image_tower.backbone.network.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    # The original keeps the head that it had.
    assert model.towers.original.visual is not head


def test_the_temperature_is_the_configs(cfg):
    towers = MODELS.build(cfg).towers
    assert objectives.original_temperature(towers) == 20.
    del cfg['temperature']
    with pytest.raises(ValueError, match='temperature: .* got None'):
        MODELS.build(cfg)


def test_crops_are_of_the_size_that_the_tower_says(cfg, make_batch):
    cfg['objectives'] = dict(
        labels=dict(
            type='mmdet_clim.RegionLabelObjective',
            boxes=dict(type='mmdet_clim.RandomBoxes', num_boxes=2),
            vocabulary=CLASSES,
            templates=('{}', )))
    model = MODELS.build(cfg).train()
    seen = []
    network = model.towers.original.backbone.network
    network.register_forward_pre_hook(
        lambda module, args: seen.append(tuple(args[0].shape)))
    data = make_batch(range(3), captions=captions(range(3)))
    losses = model(**model.data_preprocessor(data, True), mode='loss')
    assert torch.isfinite(losses['labels.loss'])
    assert seen == [(6, 3, 32, 32)]


def test_its_weights_are_no_open_clips(cfg):

    class ARunner:
        model = MODELS.build(cfg)

    with pytest.raises(TypeError, match='DenseImageTower, got BackboneTower'):
        WeightAveragingHook().before_train(ARunner)
