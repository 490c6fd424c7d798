# Licensed under the Apache License, Version 2.0.
"""CLIM on the config of a project with a scope of its own, as mmyolo has."""
import sys

import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

import mmdet_clim  # noqa: F401
from mmdet_clim.engine import add_clim, read_fragment

PACKAGE = '''
"""A project of mmyolo's kind: its scope, its detector, its data set."""
from mmdet.models.detectors import SingleStageDetector
from mmdet.registry import DATASETS as MMDET_DATASETS
from mmengine.model import BaseModule
from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import Registry
from torch import nn

from mmdet_clim.datasets import OVCocoDataset

MODELS = Registry('model', parent=ROOT_MODELS, scope='tinyyolo')
DATASETS = Registry('dataset', parent=ROOT_DATASETS, scope='tinyyolo')


@MODELS.register_module()
class TinyDarknet(BaseModule):

    def __init__(self, widths=(8, 16, 16, 16, 16), init_cfg=None):
        super().__init__(init_cfg)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, 2, 1), nn.BatchNorm2d(o),
                          nn.SiLU())
            for i, o in zip((3, *widths), widths))

    def forward(self, x):
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps[2:])


@MODELS.register_module()
class TinyDetector(SingleStageDetector):
    pass


@DATASETS.register_module()
class TinyCocoDataset(OVCocoDataset):
    pass
'''

CONFIG = """
default_scope = 'tinyyolo'
custom_imports = dict(imports=['tinyyolo'])
data_preprocessor = dict(
    type='mmdet.DetDataPreprocessor',
    mean=[114.] * 3,
    std=[58.] * 3,
    pad_size_divisor=32)
model = dict(
    type='TinyDetector',
    backbone=dict(type='TinyDarknet'),
    bbox_head=dict(
        # Its defaults are mmdet's, without a scope.
        _scope_='mmdet',
        type='YOLOXHead',
        num_classes=65,
        in_channels=16,
        feat_channels=8,
        stacked_convs=1,
        loss_cls=dict(
            type='mmdet.CrossEntropyLoss', use_sigmoid=True, reduction='sum'),
        loss_bbox=dict(type='mmdet.IoULoss', mode='square', reduction='sum'),
        loss_obj=dict(
            type='mmdet.CrossEntropyLoss', use_sigmoid=True,
            reduction='sum')),
    train_cfg=dict(assigner=dict(type='mmdet.SimOTAAssigner')),
    test_cfg=dict(score_thr=0., nms=dict(type='nms', iou_threshold=.65)))
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='TinyCocoDataset',
        indices=2,
        data_root='{{$OPENMOJI_ROOT:data}}',
        ann_file='annotations/instances_train2017_base.json',
        data_prefix=dict(img='train2017/'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='mmdet.LoadAnnotations', with_bbox=True),
            dict(type='mmdet.PackDetInputs'),
        ]))
optim_wrapper = dict(optimizer=dict(type='SGD', lr=.001))
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
"""


@pytest.fixture
def project(tmp_path, monkeypatch, openmoji_root):
    """A folder with the package ``tinyyolo`` and its config."""
    (tmp_path / 'tinyyolo.py').write_text(PACKAGE)
    (tmp_path / 'tiny.py').write_text(CONFIG)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv('OPENMOJI_ROOT', f'{openmoji_root}/')
    yield tmp_path
    sys.modules.pop('tinyyolo', None)


def test_its_config_trains_with_clim(project, repository):
    cfg = add_clim(
        Config.fromfile(project / 'tiny.py'),
        read_fragment(repository /
                      'configs/_base_/clim/openmoji_captions_tags.py'))
    cfg.work_dir = str(project / 'run')
    assert cfg.model.detector.data_preprocessor.pad_size_divisor == 32
    runner = Runner.from_cfg(cfg)
    assert DefaultScope.get_current_instance().scope_name == 'tinyyolo'
    assert type(runner.model.detector).__name__ == 'TinyDetector'
    reader = runner.model.region_reader
    assert reader.extractor.featmap_strides == [8, 16, 32]
    before = reader.projection.weight.clone()
    runner.train()
    assert (before != reader.projection.weight).any()
    losses = runner.message_hub.log_scalars
    for name in ('loss_obj', 'captions.tag.loss', 'mosaic.caption.loss'):
        assert losses[f'train/{name}'].current() > 0
