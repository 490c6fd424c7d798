# Licensed under the Apache License, Version 2.0.
"""Detic's recipes against REFERENCE.md, sections 1 and 2, written by hand."""
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from recipe_values import look_up, rates  # noqa: E402  isort: skip

C4, NET2 = 'ov_coco/detic_r50-caffe-c4', 'ov_lvis/detic_r50-centernet2'
GRIDS = ((2, 2), (3, 3), (4, 4))
LOSS = dict(
    type='mmdet_clim.CLIMRegionLoss',
    kind='bce',
    positive_reduction='mean',
    negative_weight=1 / 8)
TAG_LOSS = dict(
    type='mmdet_clim.CLIMRegionLoss', kind='bce', positive_reduction='sum')
COCO_LOGIT = dict(temperature=25.0, bias=-20.0)
LVIS_LOGIT = dict(temperature=50.0, bias=None)
# Path within the config to the value; of a dict, those keys that stand there.
COCO_SCHEDULE = {
    'optim_wrapper.optimizer.type': 'SGD',
    'optim_wrapper.optimizer.lr': .02,
    'optim_wrapper.clip_grad.max_norm': 35,
    'train_dataloader.sampler.aspect_grouping': True,
}
COCO_DETECTOR = {
    'roi_head.bbox_head.classifier': dict(COCO_LOGIT, templates='vild'),
    'roi_head.bbox_head.vocabulary.dataset': 'mmdet_clim.OVCoco80Dataset',
    'roi_head.bbox_head.classifier.text_encoder.model': 'ViT-B-32-quickgelu',
    'roi_head.bbox_head.reg_class_agnostic': True,
    'roi_head.bbox_head.reg_predictor_cfg.type': 'mmdet_clim.MLPRegressor',
}
COCO_SECOND = {
    **COCO_SCHEDULE,
    'train_cfg.max_iters': 45000,
    'param_scheduler.MultiStepLR.milestones': [30000, 40000],
    'load_from':
    'work_dirs/detic_r50-caffe-c4_90k_ov-coco_base/iter_90000.pth',
}
COCO_CAPTIONS = {
    'model.objectives.caption':
    dict(num_compositions=4, regions='tiles', gather=False, avg_factor=4),
    'model.objectives.caption.loss':
    dict(LOSS, loss_weight=.1, **COCO_LOGIT),
    'model.objectives.caption.queue':
    dict(type='mmdet_clim.FeatureQueue', size=256, dim=512),
}
COCO_TAGS = {
    'model.objectives.tag':
    dict(
        num_compositions=4,
        regions='proposals',
        templates='vild',
        min_overlap=.3,
        max_proposals=128,
        vocabulary=dict(dataset='mmdet_clim.OVCoco80Dataset')),
    'model.objectives.tag.loss':
    dict(TAG_LOSS, loss_weight=.1 / 3, **COCO_LOGIT),
}
MOSAICS = 'train_dataloader.dataset.datasets.2'
CAPTIONED = 'train_dataloader.dataset.datasets.1'
COCO_MOSAICS = {
    'train_dataloader.batch_size':
    6,
    'train_dataloader.sampler.source_ratio': [2, 2, 2],
    f'{CAPTIONED}.filter_cfg':
    dict(tagged=True),
    f'{CAPTIONED}.vocabulary.dataset':
    'mmdet_clim.OVCoco80Dataset',
    f'{CAPTIONED}.pipeline.Resize':
    dict(type='mmdet.Resize', scale=(667, 400), keep_ratio=True),
    f'{CAPTIONED}.pipeline.RandomFlip':
    dict(type='mmdet.RandomFlip', prob=.5),
    f'{MOSAICS}.filter_cfg':
    dict(tagged=True),
    f'{MOSAICS}.pipeline.Resize':
    dict(type='mmdet.Resize', scale=(400, 400), keep_ratio=True),
    f'{MOSAICS}.pipeline.RandomFlip':
    dict(type='mmdet.RandomFlip', prob=.5),
    f'{MOSAICS}.pipeline.MosaicCLIM':
    dict(
        type='mmdet_clim.MosaicCLIM',
        grids=GRIDS,
        grid_weights=None,
        tile_size=(400, 400),
        out_size=(800, 800),
        align='published',
        partners='others',
        cache_size=1024,
        pad_val=114,
        prob=1.0),
}
LVIS_SCHEDULE = {
    'optim_wrapper.optimizer.type':
    'AdamW',
    'optim_wrapper.paramwise_cfg':
    dict(norm_decay_mult=0.0),
    'optim_wrapper.clip_grad.max_norm':
    1,
    'param_scheduler.LinearLR':
    dict(type='LinearLR', start_factor=1e-4, begin=0, end=10000),
    'param_scheduler.1.type':
    'CosineAnnealingLR',
}
LVIS_DETECTOR = {
    'rpn_head':
    dict(root_score=True, extra_positives=False),
    'rpn_head.loss_cls':
    dict(
        type='mmdet_clim.HeatMapFocalLoss',
        alpha=.25,
        pos_weight=.5,
        neg_weight=.5,
        ignore_high_fp=.85),
    'rpn_head.loss_bbox':
    dict(type='mmdet.GIoULoss', loss_weight=1.0),
    'roi_head.stage_loss_weights': [1, 1, 1],
    **{
        f'roi_head.bbox_head.{stage}.{key}': value
        for stage in range(3)
        for key, value in {
            'classifier': dict(LVIS_LOGIT, templates=('a {raw}', )),
            'loss_bbox': dict(
                type='mmdet.SmoothL1Loss', beta=.1, loss_weight=1.0),
            'loss_cls': dict(
                type='mmdet_clim.FederatedClassLoss', num_sampled=50),
            'reg_class_agnostic': True,
        }.items()
    },
    **{
        f'train_cfg.rcnn.{stage}.sampler.add_gt_as_proposals': stage == 0
        for stage in range(3)
    },
}
LVIS_CAPTIONS = {
    'model.objectives.caption':
    dict(num_compositions=2, regions='tiles', gather=False, avg_factor=None),
    'model.objectives.caption.loss':
    dict(LOSS, loss_weight=1.0, **LVIS_LOGIT),
    'model.objectives.caption.queue':
    dict(type='mmdet_clim.FeatureQueue', size=256, dim=512),
}
LVIS_TAGS = {
    'model.objectives.tag':
    dict(
        num_compositions=2,
        regions='proposals',
        templates=('a {raw}', ),
        refine_regions=True,
        min_overlap=.3,
        max_proposals=128),
    'model.objectives.tag.loss':
    dict(TAG_LOSS, loss_weight=.1, **LVIS_LOGIT),
}
LVIS_SECOND = {
    **LVIS_SCHEDULE,
    'train_cfg.max_iters': 45000,
    'param_scheduler.CosineAnnealingLR': dict(begin=10000, end=45000),
    'optim_wrapper.optimizer.lr': 2e-4,
    'load_from':
    'work_dirs/detic_r50-centernet2_90k_ov-lvis_base/iter_90000.pth',
}


def lvis_images(size, ratio_range):
    return {
        'pipeline.RandomResize':
        dict(
            type='RandomResize',
            scale=(size, size),
            ratio_range=ratio_range,
            keep_ratio=True),
        'pipeline.RandomCrop':
        dict(
            type='mmdet.RandomCrop',
            crop_type='absolute',
            crop_size=(size, size)),
        'pipeline.RandomFlip':
        dict(type='mmdet.RandomFlip', prob=.5),
        'filter_cfg':
        dict(tagged=True),
    }


def within(path, table):
    return {f'{path}.{key}': value for key, value in table.items()}


LVIS_MOSAICS = {
    'train_dataloader.batch_size':
    40,
    'train_dataloader.sampler.source_ratio': [8, 16, 16],
    # Captioned images as boxed ones.
    **within(CAPTIONED, lvis_images(640, (.1, 2.0))),
    **within(MOSAICS, lvis_images(320, (.5, 1.5))),
    f'{MOSAICS}.pipeline.MosaicCLIM':
    dict(
        type='mmdet_clim.MosaicCLIM',
        grids=GRIDS,
        grid_weights=None,
        tile_size=(320, 320),
        out_size=(640, 640),
        align='published',
        partners='others',
        cache_size=1024,
        pad_val=114,
        prob=1.0),
}

BOTH = [['captions', ['caption', 'tag']], ['mosaic', ['caption', 'tag']]]
RECIPES = {
    f'{C4}_90k_ov-coco_base': {
        **COCO_SCHEDULE,
        **within('model', COCO_DETECTOR),
        'train_cfg.max_iters': 90000,
        'train_dataloader.batch_size': 2,
        'param_scheduler.MultiStepLR.milestones': [60000, 80000],
        'train_dataloader.dataset.type': 'mmdet_clim.OVCoco80Dataset',
        'val_dataloader.dataset.type': 'mmdet_clim.OVCoco80Dataset',
        'val_evaluator.type': 'mmdet_clim.OVCocoMetric',
    },
    f'{C4}_45k_ov-coco_captions': {
        **COCO_SECOND,
        **COCO_CAPTIONS,
        **within('model.detector', COCO_DETECTOR),
        'train_dataloader.sampler.source_ratio': [2, 2],
        'model.branches':
        dict(captions=['caption']),
    },
    f'{C4}_45k_ov-coco_captions_clim': {
        **COCO_SECOND,
        **COCO_CAPTIONS,
        **COCO_MOSAICS,
        **within('model.detector', COCO_DETECTOR),
        'model.branches':
        dict(captions=['caption'], mosaic=['caption']),
    },
    f'{C4}_45k_ov-coco_captions-tags_clim': {
        **COCO_SECOND,
        **COCO_CAPTIONS,
        **COCO_TAGS,
        **COCO_MOSAICS,
        **within('model.detector', COCO_DETECTOR),
        'model.branches': dict(BOTH),
    },
    f'{NET2}_90k_ov-lvis_base': {
        **LVIS_SCHEDULE,
        **within('model', LVIS_DETECTOR),
        'train_cfg.max_iters': 90000,
        'param_scheduler.CosineAnnealingLR': dict(begin=10000, end=90000),
        'optim_wrapper.optimizer.lr': 1e-4,
        'train_dataloader.batch_size': 8,
    },
    f'{NET2}_45k_ov-lvis_captions_clim': {
        **LVIS_SECOND,
        **LVIS_CAPTIONS,
        **LVIS_MOSAICS,
        **within('model.detector', LVIS_DETECTOR),
        'model.branches':
        dict(captions=['caption'], mosaic=['caption']),
    },
    f'{NET2}_45k_ov-lvis_captions-tags_clim': {
        **LVIS_SECOND,
        **LVIS_CAPTIONS,
        **LVIS_TAGS,
        **LVIS_MOSAICS,
        **within('model.detector', LVIS_DETECTOR),
        'model.branches': dict(BOTH),
    },
}
# What a config need not say, because it is the component's own value.
DEFAULTS = dict(
    regions=dict(caption='tiles', tag='proposals'),
    gather=False,
    avg_factor=None,
    min_overlap=.3,
    max_proposals=128,
    grid_weights=None,
    pad_val=114,
    prob=1.0)


@pytest.mark.parametrize('name', RECIPES)
def test_a_recipe_has_the_published_constants(repository, name):
    cfg = Config.fromfile(repository / f'configs/detic/{name}.py')
    for path, expected in RECIPES[name].items():
        found = look_up(cfg, path)
        if not isinstance(expected, dict):
            assert found == expected, path
            continue
        for key, value in expected.items():
            default = DEFAULTS.get(key)
            if isinstance(default, dict):
                default = default[path.split('.')[2]]
            assert found.get(key, default) == value, (path, key)


def test_the_defaults_that_the_table_relies_on():
    """Of the components, by their signatures."""
    import inspect

    from mmdet_clim.datasets.transforms import MosaicCLIM
    from mmdet_clim.models.objectives import (
        RegionCaptionObjective,
        RegionTagObjective,
    )
    caption, tag, mosaic = ({
        name: parameter.default
        for name, parameter in inspect.signature(kind).parameters.items()
    } for kind in (RegionCaptionObjective, RegionTagObjective, MosaicCLIM))
    assert (caption['regions'], tag['regions']) == ('tiles', 'proposals')
    assert (caption['gather'], caption['avg_factor']) == (False, None)
    assert (tag['min_overlap'], tag['max_proposals']) == (.3, 128)
    assert (mosaic['grid_weights'], mosaic['pad_val'],
            mosaic['prob']) == (None, 114, 1)


def test_rates_and_decay_of_ov_lvis(repository):
    """A warm-up from a factor of 1e-4; norms are not decayed."""
    folder = repository / f'configs/detic/{NET2}_45k_ov-lvis_captions_clim.py'
    cfg = Config.fromfile(folder)
    found = [rate for rate, *_ in rates(cfg, 101, epoch_length=10**6)]
    # The full rate after 10,000 iterations: MMEngine reaches it at 9,999.
    for step in (0, 1, 100):
        factor = 1e-4 + (1 - 1e-4) * step / 9999
        assert found[step] == pytest.approx(2e-4 * factor, rel=1e-6)
    model = nn.Sequential(
        nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4), nn.BatchNorm2d(4),
        nn.LayerNorm(4))
    groups = build_optim_wrapper(model, cfg.optim_wrapper).param_groups
    decays = {p: g['weight_decay'] for g in groups for p in g['params']}
    assert [decays[p] for p in model.parameters()] == [1e-4] * 2 + [0] * 6
