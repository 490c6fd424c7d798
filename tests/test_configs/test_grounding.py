# Licensed under the Apache License, Version 2.0.
"""The grounding configs, made small, two iterations on OpenMoji data."""
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from mmdet_clim.engine import captioned_views
from mmdet_clim.engine.runner import CLIMRunner

sys.path.insert(0, str(Path(__file__).parent))
from grounding_cases import (  # noqa: E402  isort: skip
    shrink_by_size, shrink_language_model,
)


def shorten(cfg, work_dir, load_from):
    """Two iterations of few, small images in one process."""
    sources = cfg.train_dataloader.dataset.get('datasets')
    if sources is None:
        cfg.train_dataloader.batch_size = 1
    else:
        cfg.train_dataloader.batch_size = len(sources)
        cfg.train_dataloader.sampler.source_ratio = [1] * len(sources)
    boxes = sources[0] if sources else cfg.train_dataloader.dataset
    boxes.get('dataset', boxes).indices = 2
    cfg.val_dataloader.dataset.indices = 2
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
    cfg.test_dataloader = cfg.val_dataloader
    cfg.train_cfg = dict(
        type='mmdet_clim.ResumableTrainLoop', max_iters=2, val_interval=2)
    cfg.default_hooks = dict(
        checkpoint=dict(
            cfg.default_hooks.checkpoint, by_epoch=False, interval=2))
    cfg.param_scheduler = None
    cfg.load_from = load_from
    cfg.work_dir = str(work_dir)
    cfg.visualizer = None
    return cfg


def small_images(node, size=96):
    """This many pixels for each size of an image in a pipeline."""
    if isinstance(node, dict):
        for key in ('scale', 'crop_size', 'tile_size', 'out_size'):
            if key in node:
                node[key] = (size, size)
        if 'scales' in node:
            node['scales'] = [(size, size)]
        if node.get('type') == 'mmdet_clim.MosaicCLIM':
            node['tile_size'] = (size // 2, size // 2)
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for value in node:
            small_images(value, size)


def check(cfg, names, work_dir, metric='ov_coco/novel_ap50', load_from=None):
    runner = CLIMRunner.from_cfg(shorten(cfg, work_dir, load_from))
    runner.train()
    scalars = runner.message_hub.log_scalars
    for name in names:
        assert scalars[f'train/{name}'].current() > 0, name
    assert f'val/{metric}' in scalars
    return runner.model


def test_openmoji(openmoji_root, repository, monkeypatch, tmp_path):
    """The base, and from its weights the others."""
    monkeypatch.setenv('OPENMOJI_ROOT', f'{openmoji_root}/')
    trained = tmp_path / 'base' / 'iter_2.pth'
    monkeypatch.setenv('OPENMOJI_MMGD', str(trained))
    contrast = ['mosaic.caption.loss', 'mosaic.tag.loss']
    for name, losses in (
        ('base', ['loss_cls', 'enc_loss_cls', 'dn_loss_bbox']),
        ('boxes', ['loss_cls', 'dn_loss_cls']),
        ('clim', ['loss_cls', 'mosaic.tag.loss']),
        ('clim-contrast', ['loss_cls', *contrast])):  # yapf: disable
        cfg = Config.fromfile(repository / 'configs/openmoji' /
                              f'mm-grounding-dino_r18_160_{name}.py')
        detector = cfg.model.get('detector', cfg.model)
        assert Path(detector.backbone.init_cfg.checkpoint).is_file()
        assert cfg.get('load_from') == (None
                                        if name == 'base' else str(trained))
        small_images([cfg.train_dataloader, cfg.val_dataloader])
        check(cfg, losses, tmp_path / name, load_from=cfg.get('load_from'))


def test_openmoji_from_a_dino(openmoji_root, repository, monkeypatch,
                              tmp_path):
    """The base starts from a DINO, the others from the base."""
    folder = repository / 'configs/openmoji'
    monkeypatch.setenv('OPENMOJI_ROOT', f'{openmoji_root}/')
    init_default_scope('mmdet')
    model = Config.fromfile(folder / 'dino_r18_256_base.py').model
    # Another backbone than the one that all configs start from.
    model.backbone.init_cfg = None
    model = MODELS.build(model)
    model.init_weights()
    dino = model.state_dict()
    monkeypatch.setenv('OPENMOJI_DINO', str(tmp_path / 'dino.pth'))
    torch.save(dict(state_dict=dino), tmp_path / 'dino.pth')
    trained = tmp_path / 'base' / 'iter_2.pth'
    monkeypatch.setenv('OPENMOJI_MMGD_256', str(trained))
    mosaic = ['mosaic.tag.loss', 'mosaic.tag.prompts']
    models = {}
    for name, losses in (
        ('base', ['enc_loss_cls', 'dn_loss_bbox']),
        ('boxes', ['loss_cls']),
        ('captions-tags', ['captions.tag.loss', 'captions.tag.prompts']),
        ('clim', mosaic),
        ('clim_box', mosaic),
        ('clim_equal-views', ['captions.tag.loss', *mosaic])
    ):  # yapf: disable
        cfg = Config.fromfile(folder / f'mm-grounding-dino_r18_256_{name}.py')
        if name in ('captions-tags', 'clim_equal-views'):
            assert captioned_views(cfg) == 6
        # As many positions as queries, at least.
        small_images([cfg.train_dataloader, cfg.val_dataloader], 128)
        assert bool(cfg.load_from_skip) == (name == 'base')
        models[name] = check(
            cfg, losses, tmp_path / name, load_from=cfg.load_from)
    base = models['base'].state_dict()
    frozen = [name for name in dino if name.startswith('backbone.')]
    assert frozen and all(torch.equal(base[n], dino[n]) for n in frozen)
    objectives = [
        models[name].objectives['tag']
        for name in ('captions-tags', 'clim', 'clim_box', 'clim_equal-views')
    ]
    assert [o.match for o in objectives] == ['text', 'text', 'box', 'text']
    assert [o.box_weight for o in objectives] == [1, 1, 0, 1]
    # Two branches together weigh as much as the one of the others.
    assert [o.loss_weight for o in objectives] == [4, 4, 4, 2]


@pytest.mark.parametrize('name, losses', [
    ('boxes', ['loss_cls']),
    ('clim', ['mosaic.caption.loss', 'mosaic.tag.loss']),
    ('clim-contrast', ['mosaic.caption.loss', 'mosaic.tag.loss']),
])
def test_ov_coco(openmoji_root, clip_checkpoint, repository, monkeypatch,
                 tmp_path, bert, name, losses):
    """mmdet's 48/17 config with CLIM around, on data in COCO's layout."""
    monkeypatch.setenv('OV_COCO_ROOT', f'{openmoji_root}/')
    cfg = Config.fromfile(
        repository /
        f'configs/grounding/mm-grounding-dino_swin-t_ov-coco_{name}.py')
    shrink_by_size(cfg.model.get('detector', cfg.model), bert)
    if name != 'boxes':
        captioned = cfg.train_dataloader.dataset.datasets[1]
        captioned.ann_file = 'annotations/captions_captioned2017_tags.json'
        captioned.data_prefix = dict(img='captioned2017/')
    if name == 'clim':
        shrink_language_model(cfg, bert)
    small_images([cfg.train_dataloader, cfg.val_dataloader])
    check(cfg, losses, tmp_path)


@pytest.mark.parametrize('name, losses', [
    ('boxes', ['loss_cls']),
    ('clim', ['mosaic.caption.loss', 'mosaic.tag.loss']),
])
def test_ov_lvis(openmoji_lvis_root, clip_checkpoint, repository, monkeypatch,
                 tmp_path, bert, name, losses):
    """mmdet's 866/337 config, on data in LVIS's layout."""
    for variable in ('OV_LVIS_ROOT', 'CC3M_ROOT'):
        monkeypatch.setenv(variable, f'{openmoji_lvis_root}/')
    monkeypatch.setenv('CC3M_CAPTIONS',
                       'annotations/captions_captioned2017_tags.json')
    monkeypatch.setenv('CC3M_IMAGES', 'captioned2017/')
    cfg = Config.fromfile(
        repository /
        f'configs/grounding/mm-grounding-dino_swin-t_ov-lvis_{name}.py')
    shrink_by_size(cfg.model.get('detector', cfg.model), bert)
    if name == 'clim':
        shrink_language_model(cfg, bert)
    small_images([cfg.train_dataloader, cfg.val_dataloader])
    check(cfg, losses, tmp_path, 'ov_lvis/box_apr')


@pytest.mark.parametrize('name', ['ov-coco_clim-contrast', 'ov-lvis_clim'])
def test_the_others_are_read(repository, name):
    cfg = Config.fromfile(
        repository / f'configs/grounding/mm-grounding-dino_swin-t_{name}.py')
    assert cfg.model.type == 'mmdet_clim.CLIMDetector'
    assert cfg.model.detector.type.endswith('GroundingDINO')
    boxes, mosaics = cfg.train_dataloader.dataset.datasets
    pipeline = boxes.get('dataset', boxes).pipeline
    assert pipeline[-2].type == 'mmdet_clim.BaseClassPrompt'
    assert pipeline[-1].type == 'PackDetInputs'
    pack = mosaics.pipeline[-2 if name.endswith('clim') else -1]
    assert pack.branch == 'mosaic'
    assert cfg.train_dataloader.sampler.source_ratio == [4, 4]
