# Licensed under the Apache License, Version 2.0.
"""The small CLIP of OpenMoji: trained, refined and measured by the tools."""
import pytest
import torch
from mmengine.config import Config

import mmdet_clim  # noqa: F401
from mmdet_clim.engine import captioned_views

REFINED = {
    'clip_clim': ('clim', 32, 29),
    'clip_clim_2x2': ('clim', 31, 28),
    'clip_clim_3x3': ('clim', 30, 27),
    'clip_clim_4x4': ('clim', 35, 32),
    'clip_clim_text-weighted': ('clim', 31, 28),
    'clip_whole-images': ('clim', 10, 7),
    'clip_whole-images_equal-views': ('clim', 31, 28),
    'clip_region-labels': ('labels', 8, None),
    'clip_self-distillation': ('distillation', 8, None),
}
SHORT = [
    'train_cfg.max_iters=2', 'train_cfg.val_interval=2',
    'default_hooks.logger.interval=1', 'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False',
    'test_dataloader.num_workers=0',
    'test_dataloader.persistent_workers=False',
    'val_dataloader.dataset.datasets.1.indices=8',
    'test_dataloader.dataset.datasets.1.indices=8'
]


@pytest.fixture(scope='module')
def pretrained(openmoji_root, run_tool, tmp_path_factory):
    """What the documented command gives, after two iterations."""
    folder = tmp_path_factory.mktemp('clip_pretrain')
    code, output = run_tool(
        'train.py',
        'configs/openmoji/clip_pretrain.py',
        '--work-dir',
        folder,
        '--cfg-options',
        *SHORT,
        'train_dataloader.batch_size=8',
        env=dict(
            OPENMOJI_ROOT=f'{openmoji_root}/',
            OPENMOJI_CLIP_ROOT=f'{openmoji_root}/'))
    assert code == 0, output[-4000:]
    assert 'clip.loss' in output
    return folder / 'open_clip.pt'


def test_the_file_is_small_enough_to_be_shipped(pretrained):
    assert pretrained.stat().st_size < 10e6


def test_a_file_of_open_clip_is_measured(pretrained, openmoji_root, run_tool,
                                         tmp_path):
    """The row of the original CLIP: no checkpoint of MMEngine is needed."""
    code, output = run_tool(
        'test.py',
        'configs/openmoji/clip_clim.py',
        pretrained,
        '--work-dir',
        tmp_path,
        '--cfg-options',
        *SHORT[3:],
        env=dict(
            OPENMOJI_ROOT=f'{openmoji_root}/', OPENMOJI_CLIP=str(pretrained)))
    assert code == 0, output[-4000:]
    for way in ('roi', 'centre', 'mask', 'crop'):
        for group in ('all', 'base', 'novel'):
            assert f'region/{way}_{group}_top1' in output
    assert 'retrieval/text_to_image_r1' in output
    assert 'unexpected key' not in output
    assert ('1 weights are missing and keep their initialization: '
            'objectives.clim.region_loss.log_temperature') in output


def test_whole_images_of_equal_views(repository):
    clim, whole = (
        captioned_views(
            Config.fromfile(repository / f'configs/openmoji/{name}.py'))
        for name in ('clip_clim_2x2', 'clip_whole-images_equal-views'))
    assert clim == whole == 31


@pytest.mark.parametrize('name', REFINED)
def test_two_iterations(pretrained, openmoji_root, repository, monkeypatch,
                        train, tmp_path, name):
    import open_clip
    monkeypatch.setenv('OPENMOJI_ROOT', f'{openmoji_root}/')
    monkeypatch.setenv('OPENMOJI_CLIP', str(pretrained))
    cfg = Config.fromfile(repository / f'configs/openmoji/{name}.py')
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
    cfg.val_dataloader.dataset.datasets[1].indices = 8
    cfg.test_dataloader = cfg.val_dataloader
    cfg.train_cfg.update(max_iters=2, val_interval=2)
    if name == 'clip_region-labels':
        # A CLIP of two iterations is sure of nothing.
        cfg.model.objectives.labels.min_confidence = 0.
    objective, batch_size, tiles = REFINED[name]
    assert cfg.train_dataloader.batch_size == batch_size
    runner, record = train(cfg, tmp_path)
    assert all(0 < step[f'{objective}.loss'] < 100 for step in record.losses)
    if tiles:
        mosaic = runner.model.objectives['clim'].mosaic
        images = torch.zeros(batch_size, 3, 16, 16)
        assert len(mosaic(images, [(16, 16)] * batch_size).rois) == tiles
    saved = open_clip.create_model(
        'open_clip_small', pretrained=str(tmp_path / 'open_clip.pt'))
    original = torch.load(pretrained)
    for key, value in saved.state_dict().items():
        block = key.startswith('visual.transformer.resblocks.')
        if not (block and int(key.split('.')[3]) >= 2) and \
                key != 'logit_scale':
            torch.testing.assert_close(value, original[key].float())
