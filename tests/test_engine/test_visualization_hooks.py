# Licensed under the Apache License, Version 2.0.
"""Pictures that a training hands to the visualizer of its runner."""
import os
import socket

import cv2
import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from mmdet_clim.engine import prepare_cpu_processes
from mmdet_clim.engine.hooks import MosaicVisualizationHook, ResponseMapHook

FOLDER = 'configs/openmoji'
CONFIG = f'{FOLDER}/faster-rcnn_r18-c4_256_captions-tags_clim.py'
CLIP = f'{FOLDER}/clip_clim.py'


class WatchedRandomness(MosaicVisualizationHook):
    """Says whether a picture changed torch's random draws."""

    states = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        before = torch.get_rng_state()
        super().before_train_iter(runner, batch_idx, data_batch)
        self.states.append(torch.equal(before, torch.get_rng_state()))


def short(cfg, work_dir, hooks):
    """Two iterations of four images, and one to validate on."""
    cfg.train_dataloader.batch_size = 4
    if 'sampler' in cfg.train_dataloader and \
            'source_ratio' in cfg.train_dataloader.sampler:
        cfg.train_dataloader.sampler.update(
            batch_size=4, source_ratio=[1, 1, 2])
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.num_workers = 0
        loader.persistent_workers = False
    for dataset in cfg.val_dataloader.dataset.get(
            'datasets', [cfg.val_dataloader.dataset]):
        dataset.indices = 1
    cfg.train_cfg.update(max_iters=2, val_interval=2)
    cfg.default_hooks.checkpoint = None
    cfg.custom_hooks = hooks
    cfg.work_dir = str(work_dir)
    return cfg


@pytest.fixture
def run(repository, openmoji_root, tmp_path, monkeypatch):
    """A training of two iterations with these hooks."""
    monkeypatch.setenv('OPENMOJI_ROOT', str(openmoji_root) + '/')

    def start(hooks, config=CONFIG, change=None, **changed):
        cfg = short(
            Config.fromfile(repository / config), tmp_path / 'run', hooks)
        if change is not None:
            change(cfg)
        cfg.merge_from_dict(changed)
        init_default_scope('mmdet')
        runner = Runner.from_cfg(cfg)
        runner.train()
        return tmp_path / 'run' / runner.timestamp / 'vis_data'

    return start


def pictures(folder):
    """Names of what was drawn below a folder."""
    return sorted(file.name for file in folder.rglob('*.png'))


def response_hook(openmoji_root):
    """The hook on one image, two texts and small sizes."""
    image = next((openmoji_root / 'val2017').glob('*.jpg'))
    return dict(
        type='mmdet_clim.ResponseMapHook',
        images=[str(image)],
        texts=['a cat', 'a car'],
        size=96,
        side=64)


def test_pictures_of_a_training(run, openmoji_root):
    folder = run([
        WatchedRandomness(interval=1, num=3, side=128),
        response_hook(openmoji_root)
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


def test_a_local_store_of_mlflow(run, openmoji_root, monkeypatch):
    mlflow = pytest.importorskip(
        'mlflow',
        reason='MLflow brings some twenty packages that nothing else needs; '
        'docs/tracking.md tells how to install and try it')
    monkeypatch.delenv('MLFLOW_ALLOW_FILE_STORE', raising=False)
    folder = run([
        dict(
            type='mmdet_clim.MosaicVisualizationHook',
            interval=2,
            num=1,
            side=128)
    ],
                 visualizer=dict(vis_backends=[
                     dict(
                         type='mmdet_clim.MLflowVisBackend',
                         exp_name='clim',
                         run_name='captions',
                         tracked_config_keys=['optim_wrapper'])
                 ]),
                 **{'default_hooks.logger.interval': 1})
    client = mlflow.MlflowClient(f'file://{folder}')
    experiment = client.get_experiment_by_name('clim')
    stored, = client.search_runs([experiment.experiment_id])
    assert stored.info.run_name == 'captions'
    # Losses of each branch, the metric that MLflow refuses as it is named,
    # and that of the validation.
    metrics = stored.data.metrics
    for name in ('mosaic.caption.loss', 'mosaic.caption.recall_1', 'loss_cls',
                 'ov_coco/novel_ap50'):
        assert name in metrics, sorted(metrics)
    steps = [
        of.step for of in client.get_metric_history(stored.info.run_id,
                                                    'mosaic.caption.loss')
    ]
    assert steps == [1, 2]
    assert stored.data.params['optim_wrapper.optimizer.type'] == 'AdamW'
    files = {of.path for of in client.list_artifacts(stored.info.run_id)}
    assert {'mosaic_0_0.png', 'config.py'} <= files
    path = client.download_artifacts(stored.info.run_id, 'mosaic_0_0.png')
    assert cv2.imread(path).shape == (128, 256, 3)


def unwrap(cfg):
    """The plain detector, which takes each tile for a box."""
    cfg.model = cfg.model.detector
    mosaics = cfg.train_dataloader.dataset.datasets[-1]
    cfg.train_dataloader = dict(
        batch_size=2,
        num_workers=0,
        sampler=dict(type='InfiniteSampler'),
        dataset=mosaics)


def test_a_plain_detector(run, openmoji_root):
    folder = run([
        dict(
            type='mmdet_clim.MosaicVisualizationHook',
            interval=2,
            num=1,
            side=128),
        response_hook(openmoji_root)
    ],
                 change=unwrap)
    assert pictures(folder) == [
        'mosaic_0_0.png', 'responses_0.png', 'responses_2.png'
    ]
    start, end = (
        cv2.imread(str(folder / f'vis_image/responses_{step}.png'))
        for step in (0, 2))
    row = len(end) - len(start)
    assert start.shape[1] == end.shape[1] and row > 32


@pytest.fixture
def small_clip(repository, tmp_path, monkeypatch):
    """The weights that ``CLIP`` starts from."""
    import open_clip
    config = repository / FOLDER / 'open_clip_small.json'
    open_clip.add_model_config(config)
    torch.manual_seed(0)
    weights = tmp_path / 'clip.pt'
    torch.save(open_clip.create_model(config.stem).state_dict(), weights)
    monkeypatch.setenv('OPENMOJI_CLIP', str(weights))


def five_images(cfg):
    """A mosaic of 2 x 2 and a whole image."""
    cfg.train_dataloader.batch_size = 5
    cfg.model.objectives.clim.grids = ((2, 2), )


def test_a_clip_that_is_refined(run, small_clip, openmoji_root):
    folder = run([response_hook(openmoji_root)], CLIP, five_images)
    assert pictures(folder) == ['responses_0.png', 'responses_2.png']
    # Its mosaics are made on the device.
    with pytest.raises(ValueError, match='MosaicCLIM.*found none'):
        run([dict(type='mmdet_clim.MosaicVisualizationHook')], CLIP,
            five_images)


def train_on_rank(rank, port, config, folder, hooks):
    """As ``tools/train.py`` does under torchrun."""
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE='2',
        MASTER_ADDR='127.0.0.1',
        MASTER_PORT=str(port))
    cfg = short(Config.fromfile(config), folder / f'rank{rank}', hooks)
    cfg.launcher = 'pytorch'
    init_default_scope('mmdet')
    prepare_cpu_processes(cfg)
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert isinstance(runner.model, MMDistributedDataParallel)
    weights = torch.cat([p.flatten() for p in runner.model.parameters()])
    torch.save(weights.detach(), folder / f'{rank}.pth')
    # The process group ends with this process; see
    # test_models/test_detectors/test_clim_detector_ddp.py.


def test_one_of_two_processes_draws(repository, openmoji_root, tmp_path,
                                    monkeypatch):
    monkeypatch.setenv('OPENMOJI_ROOT', str(openmoji_root) + '/')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    hooks = [
        dict(
            type='mmdet_clim.MosaicVisualizationHook',
            interval=2,
            num=1,
            side=128),
        response_hook(openmoji_root)
    ]
    mp.start_processes(
        train_on_rank, (port, repository / CONFIG, tmp_path, hooks),
        2,
        start_method='fork')
    assert pictures(tmp_path / 'rank0') == [
        'mosaic_0_0.png', 'responses_0.png', 'responses_2.png'
    ]
    assert pictures(tmp_path / 'rank1') == []
    # Both went through both steps: what one drew has not put them apart.
    first, second = (torch.load(tmp_path / f'{rank}.pth') for rank in (0, 1))
    assert torch.equal(first, second)


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
