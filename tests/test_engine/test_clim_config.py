# Licensed under the Apache License, Version 2.0.
"""``--clim`` on a config, against configs that were written by hand."""
import copy

import pytest
from mmdet.datasets import CocoDataset
from mmdet.models import RTMDet
from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.hooks import EMAHook

import mmdet_clim  # noqa: F401
from mmdet_clim.engine import add_clim, read_fragment
from mmdet_clim.models.detectors import CLIMDetector

OV_COCO = 'configs/_base_/clim/ov_coco_captions_tags.py'
FRAGMENT = """
clim_text_encoder = dict(type='Encoder')
clim_mosaic_dataset = dict(
    type='Texts',
    pipeline=[dict(type='mmdet_clim.PackRegionTextInputs')])
clim_objectives = dict(caption=dict(type='Captions'))
"""
HOST = """
model = dict(type='Toy')
train_dataloader = dict(
    batch_size=4,
    num_workers=3,
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    dataset=dict(type='Boxes'))
auto_scale_lr = dict(enable=False, base_batch_size=16)
"""


@pytest.fixture
def host():
    return Config.fromstring(HOST, '.py')


@pytest.fixture
def fragment():
    return Config.fromstring(FRAGMENT, '.py')


def test_it_is_the_recipe_written_by_hand(repository):
    """Detic's base detector with captions, tags and mosaics on OV-COCO."""
    folder = repository / 'configs/detic/ov_coco'
    base = Config.fromfile(folder / 'detic_r50-caffe-c4_90k_ov-coco_base.py')
    by_hand = Config.fromfile(
        folder / 'detic_r50-caffe-c4_45k_ov-coco_captions-tags_clim.py')
    before = copy.deepcopy(base.to_dict())
    made = add_clim(base, read_fragment(repository / OV_COCO))
    assert base.to_dict() == before
    # The second stage has a schedule of its own, and starts from the first.
    for key in ('load_from', 'train_cfg', 'param_scheduler', 'optim_wrapper',
                'custom_hooks'):
        made.pop(key, None)
        by_hand.pop(key, None)
    assert made.to_dict() == by_hand.to_dict()


def test_a_fragment_of_a_package(repository):
    name = '_base_/clim/openmoji_captions_tags.py'
    assert list(read_fragment(f'mmdet_clim::{name}')) == \
        list(read_fragment(repository / 'configs' / name))


def test_every_part(host, fragment):
    made = add_clim(host, fragment)
    assert made.model == dict(
        type='mmdet_clim.CLIMDetector',
        detector=dict(type='Toy'),
        objectives=dict(caption=dict(type='Captions')),
        text_encoder=dict(type='Encoder'),
        branches=dict(mosaic=['caption']))
    assert made.train_dataloader == dict(
        batch_size=8,
        num_workers=3,
        sampler=dict(
            type='mmdet_clim.MultiSourceSampler', source_ratio=[4, 4]),
        batch_sampler=dict(type='mmdet_clim.MultiSourceBatchSampler'),
        dataset=dict(
            type='mmdet_clim.MultiSourceDataset',
            datasets=[dict(type='Boxes'), fragment.clim_mosaic_dataset]))
    assert made.auto_scale_lr.base_batch_size == 32


def test_what_a_fragment_may_choose(host, fragment):
    fragment.clim_other_dataset = dict(
        type='Texts',
        pipeline=[dict(type='PackRegionTextInputs', branch='captions')])
    fragment.clim_objectives['tag'] = dict(type='Tags')
    fragment.clim_branches = dict(captions=['tag'])
    fragment.clim_source_ratio = [3, 1]
    fragment.clim_region_reader = dict(type='Reader')
    made = add_clim(host, fragment)
    assert made.model.objectives == dict(tag=dict(type='Tags'))
    assert made.model.branches == dict(captions=['tag'])
    assert made.model.region_reader == dict(type='Reader')
    assert made.train_dataloader.sampler.source_ratio == [3, 1]
    assert made.train_dataloader.dataset.datasets[1:] == [
        fragment.clim_other_dataset
    ]


def test_hooks_and_preprocessor_of_other_projects(host, fragment):
    host.custom_hooks = [
        dict(type='mmdet.PipelineSwitchHook'),
        dict(type='EMAHook')
    ]
    host.data_preprocessor = dict(type='Pad')
    made = add_clim(host, fragment)
    assert made.custom_hooks == [
        dict(type='EMAHook'),
        dict(type='mmdet_clim.IterationSeedHook'),
        dict(type='mmdet_clim.UnreachedWeightsHook')
    ]
    assert made.model.detector.data_preprocessor == dict(type='Pad')
    assert 'data_preprocessor' not in made


@pytest.mark.parametrize('loop, checkpoint, expected', [
    (dict(type='IterBasedTrainLoop', max_iters=3), 'CheckpointHook',
     ('mmdet_clim.ResumableTrainLoop', 'mmdet_clim.AtomicCheckpointHook')),
    (dict(by_epoch=False, max_iters=3), 'mmengine.CheckpointHook',
     ('mmdet_clim.ResumableTrainLoop', 'mmdet_clim.AtomicCheckpointHook')),
    (dict(type='EpochBasedTrainLoop', max_epochs=3), 'OwnHook',
     ('EpochBasedTrainLoop', 'OwnHook')),
])
def test_the_run_is_resumable(host, fragment, loop, checkpoint, expected):
    host.train_cfg = loop
    host.default_hooks = dict(checkpoint=dict(type=checkpoint, interval=2))
    made = add_clim(host, fragment)
    assert (made.train_cfg.type,
            made.default_hooks.checkpoint.type) == expected
    assert 'by_epoch' not in made.train_cfg
    assert made.default_hooks.checkpoint.interval == 2
    assert [hook.type for hook in made.custom_hooks] == [
        'mmdet_clim.IterationSeedHook', 'mmdet_clim.UnreachedWeightsHook'
    ]
    assert add_clim(host, fragment).custom_hooks == made.custom_hooks


def test_options_of_the_fragment(host, tmp_path):
    path = tmp_path / 'fragment.py'
    path.write_text(FRAGMENT)
    fragment = read_fragment(
        path, {
            'clim_source_ratio': [3, 1],
            'clim_objectives.caption.weight': 2,
            'model.depth': 18
        })
    made = add_clim(host, fragment)
    assert made.train_dataloader.sampler.source_ratio == [3, 1]
    assert made.train_dataloader.batch_size == 4
    assert made.model.objectives.caption == dict(type='Captions', weight=2)
    assert made.model.detector == dict(type='Toy')


def test_another_fragment_that_the_config_inherited(host, fragment):
    expected = add_clim(host, fragment)
    host.clim_mosaic_dataset = dict(type='Texts', indices=3)
    host.clim_source_ratio = [1, 5]
    made = add_clim(host, fragment)
    assert made.train_dataloader == expected.train_dataloader
    assert made.clim_mosaic_dataset == fragment.clim_mosaic_dataset


def test_a_config_of_the_new_form(fragment, tmp_path):
    """Its types are classes and no names."""
    path = tmp_path / 'host.py'
    path.write_text("""
from mmdet.datasets import CocoDataset
from mmdet.engine.hooks import PipelineSwitchHook
from mmdet.models import RTMDet
from mmengine.dataset import pseudo_collate
from mmengine.hooks import EMAHook
model = dict(type=RTMDet)
train_dataloader = dict(
    batch_size=4,
    collate_fn=dict(type=pseudo_collate),
    dataset=dict(type=CocoDataset))
custom_hooks = [dict(type=PipelineSwitchHook), dict(type=EMAHook)]
""")
    host = Config.fromfile(path)
    made = add_clim(host, fragment)
    assert made.custom_hooks[0] == dict(type=EMAHook)
    assert made.model.detector == dict(type=RTMDet)
    assert made.train_dataloader.collate_fn == dict(type=pseudo_collate)
    assert made.train_dataloader.dataset.datasets[0] == dict(type=CocoDataset)
    # A run writes it down.
    (tmp_path / 'made.py').write_text(made.pretty_text)
    assert Config.fromfile(tmp_path / 'made.py').model.detector.type == \
        'mmdet.models.RTMDet'
    host.model = ConfigDict(type=CLIMDetector)
    with pytest.raises(ValueError, match='already'):
        add_clim(host, fragment)


@pytest.mark.parametrize('changes, error, message', [
    (dict(model=dict(type='mmdet_clim.CLIMDetector')), ValueError, 'already'),
    (dict(train_dataloader=None), KeyError, "expected 'train_dataloader'"),
    (dict(train_dataloader=dict(batch_size=2)), KeyError, 'dataset'),
    (dict(
        train_dataloader=dict(
            batch_size=2,
            dataset=dict(type='Boxes'),
            collate_fn=dict(type='yolov5_collate'))), ValueError,
     'yolov5_collate'),
])
def test_hosts_that_can_not(host, fragment, changes, error, message):
    for key, value in changes.items():
        host[key] = value
    with pytest.raises(error, match=message):
        add_clim(host, fragment)


@pytest.mark.parametrize('name, message', [
    ('clim_text_encoder', "\\['clim_text_encoder'\\] missing"),
    ('clim_mosaic_dataset', 'clim_\\*_dataset'),
    ('clim_objectives', 'clim_\\*_objective'),
])
def test_fragments_that_lack_names(host, fragment, name, message):
    fragment.pop(name)
    with pytest.raises(KeyError, match=message):
        add_clim(host, fragment)


def test_fragments_that_say_too_much(host, fragment, tmp_path):
    path = tmp_path / 'fragment.py'
    path.write_text(FRAGMENT + "model = dict(type='Other')\n")
    with pytest.raises(ValueError, match=r"no others, got \['model'\]"):
        read_fragment(path)
    fragment.clim_source_ratio = [1, 0]
    with pytest.raises(ValueError, match='clim_source_ratio'):
        add_clim(host, fragment)
    fragment.clim_branches = dict(story=['caption'])
    with pytest.raises(KeyError, match='story'):
        add_clim(host, fragment)
    fragment.clim_mosaic_dataset.pipeline = []
    with pytest.raises(KeyError, match='PackRegionTextInputs'):
        add_clim(host, fragment)


def test_a_run_of_mmdet_with_clim(run_tool, repository, openmoji_root,
                                  tmp_path):
    """RetinaNet's own config, its data replaced, two steps, evaluated."""
    host = tmp_path / 'retinanet_small.py'
    host.write_text("""
_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
model = dict(
    backbone=dict(base_channels=16, init_cfg=None),
    neck=dict(in_channels=[16, 32, 64, 128]),
    bbox_head=dict(num_classes=65, stacked_convs=1))
coco = dict(
    type='mmdet_clim.OVCocoDataset',
    data_root='{{$OPENMOJI_ROOT:data}}',
    indices=2)
pipeline = _base_.train_pipeline
pipeline[2].scale = (64, 64)
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        ann_file='annotations/instances_train2017_base.json', **coco))
val_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(**coco))
test_dataloader = val_dataloader
val_evaluator = dict(
    ann_file='{{$OPENMOJI_ROOT:data}}annotations/instances_val2017.json')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=1)
""")
    fragment = 'mmdet_clim::_base_/clim/openmoji_captions_tags.py'
    code, log = run_tool(
        'train.py',
        host,
        '--clim',
        fragment,
        '--work-dir',
        tmp_path / 'run',
        '--cfg-options',
        'default_hooks.logger.interval=1',
        env=dict(OPENMOJI_ROOT=f'{openmoji_root}/'))
    assert code == 0, log[-3000:]
    for name in ('loss_cls', 'captions.caption.loss', 'mosaic.tag.loss'):
        assert name in log
    assert 'Epoch(val)' in log
    assert (tmp_path / 'run' / 'epoch_1.pth').exists()
    code, printed = run_tool(
        'misc/print_config.py',
        host,
        '--clim',
        fragment,
        env=dict(OPENMOJI_ROOT=f'{openmoji_root}/'))
    assert code == 0
    assert "type='mmdet_clim.CLIMDetector'" in printed
