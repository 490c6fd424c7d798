# Licensed under the Apache License, Version 2.0.
"""Pictures that a training hands to the visualizer of its runner."""
import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from mmdet_clim.engine.hooks import MosaicVisualizationHook, ResponseMapHook

CONFIG = 'configs/openmoji/faster-rcnn_r18-c4_256_captions-tags_clim.py'


class WatchedRandomness(MosaicVisualizationHook):
    """Says whether a picture changed torch's random draws."""

    states = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        before = torch.get_rng_state()
        super().before_train_iter(runner, batch_idx, data_batch)
        self.states.append(torch.equal(before, torch.get_rng_state()))


@pytest.fixture
def run(repository, openmoji_root, tmp_path, monkeypatch):
    """A training of two iterations with these hooks."""
    monkeypatch.setenv('OPENMOJI_ROOT', str(openmoji_root) + '/')

    def start(hooks, **changed):
        cfg = Config.fromfile(repository / CONFIG)
        cfg.train_dataloader.batch_size = 4
        cfg.train_dataloader.sampler.update(
            batch_size=4, source_ratio=[1, 1, 2])
        for loader in (cfg.train_dataloader, cfg.val_dataloader):
            loader.num_workers = 0
            loader.persistent_workers = False
        cfg.val_dataloader.dataset.indices = 1
        cfg.train_cfg.update(max_iters=2, val_interval=2)
        cfg.default_hooks.checkpoint = None
        cfg.custom_hooks = hooks
        cfg.work_dir = str(tmp_path / 'run')
        cfg.merge_from_dict(changed)
        init_default_scope('mmdet')
        runner = Runner.from_cfg(cfg)
        runner.train()
        return tmp_path / 'run' / runner.timestamp / 'vis_data'

    return start


def test_pictures_of_a_training(run, openmoji_root):
    image = next((openmoji_root / 'val2017').glob('*.jpg'))
    folder = run([
        WatchedRandomness(interval=1, num=3, side=128),
        dict(
            type='mmdet_clim.ResponseMapHook',
            images=[str(image)],
            texts=['a cat', 'a car'],
            size=96,
            side=64)
    ],
                 visualizer=dict(vis_backends=[
                     dict(type='LocalVisBackend'),
                     dict(type='TensorboardVisBackend')
                 ]))
    found = sorted(
        str(file.relative_to(folder / 'vis_image'))
        for file in (folder / 'vis_image').rglob('*.png'))
    # Two mosaics in a batch of each iteration; the maps before and after.
    assert found == [
        'mosaic_0_0.png', 'mosaic_0_1.png', 'mosaic_1_0.png', 'mosaic_1_1.png',
        'responses_0.png', 'responses_2.png'
    ]
    assert WatchedRandomness.states == [True, True]
    mosaic = cv2.imread(str(folder / 'vis_image/mosaic_0_0.png'))
    assert mosaic.shape == (128, 256, 3)
    start, end = (
        cv2.imread(str(folder / f'vis_image/responses_{step}.png'))
        for step in (0, 2))
    # The image and two maps beside the names, in one row and in two.
    assert start.shape[1] == end.shape[1] == 32 + 6 + 3 * 70
    row = (len(end) - len(start))
    assert row > 32
    rows = end[-2 * row:-row, 108:], end[-row:, 108:]
    assert (np.abs(rows[0].astype(int) - rows[1]) > 2).any()
    from tensorboard.backend.event_processing import event_accumulator
    events = event_accumulator.EventAccumulator(str(folder)).Reload()
    assert {'mosaic_0', 'mosaic_1',
            'responses'} <= set(events.Tags()['images'])


class FixedRunner:
    """What the hook reads of a runner at the start."""

    class train_dataloader:
        dataset = [1, 2]


def test_data_without_mosaics():
    with pytest.raises(ValueError, match='MosaicCLIM.*found none'):
        MosaicVisualizationHook().before_train(FixedRunner())


@pytest.mark.parametrize('make, message', [
    (lambda: MosaicVisualizationHook(interval=0), 'interval.*got 0'),
    (lambda: MosaicVisualizationHook(num=1.5), 'num.*got 1.5'),
    (lambda: ResponseMapHook([], ['a']), 'images.*at least one'),
    (lambda: ResponseMapHook(['a.jpg'], 'cat'), "texts.*got 'cat'"),
    (lambda: ResponseMapHook(['a.jpg'], ['cat'], size=0), 'size.*got 0'),
])
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_image_that_is_missing(tmp_path):
    hook = ResponseMapHook([str(tmp_path / 'a.jpg')], ['cat'])
    with pytest.raises(FileNotFoundError, match='a.jpg'):
        hook.before_run(None)
