# Licensed under the Apache License, Version 2.0.
"""What the tests of recipes share: small data, a small CLIP, short runs."""
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

import mmdet_clim  # noqa: F401
from mmdet_clim.datasets.openmoji import DatasetParameters, build_dataset

CLIP = 'ViT-B-32-quickgelu'
SIZES = ('scale', 'crop_size', 'img_scale', 'tile_size', 'out_size')
# What decides a run; further names of a config only serve these.
RUN = ('model', 'train_dataloader', 'val_dataloader', 'val_evaluator',
       'optim_wrapper', 'param_scheduler', 'train_cfg', 'custom_hooks',
       'load_from')


class RecordIterations(Hook):
    """The losses and the rate of each iteration."""

    def __init__(self):
        self.losses, self.rates = [], []

    def before_train_iter(self, runner, *args, **kwargs):
        self.rates.append(runner.optim_wrapper.param_groups[0]['lr'])

    def after_train_iter(self, runner, *args, outputs=None, **kwargs):
        self.losses.append({k: v.item() for k, v in outputs.items()})


@pytest.fixture(scope='module')
def clip_checkpoint(small_clips, tmp_path_factory):
    """A CLIP with the name and width of ViT-B/32 that is otherwise small.

    ``CLIP_VIT_B_32`` names it while tests run.
    """
    import open_clip  # after mmdet_clim, which prepares for it
    folder = tmp_path_factory.mktemp('clip')
    path = folder / 'clip.pt'
    small = dict(
        embed_dim=512,
        quick_gelu=True,
        vision_cfg=dict(
            image_size=32, layers=1, width=32, patch_size=16, head_width=16),
        text_cfg=dict(
            context_length=77, vocab_size=49408, width=32, heads=2, layers=1))
    with pytest.MonkeyPatch.context() as patch, small_clips(
            folder / 'models', {CLIP: small}):
        torch.manual_seed(0)
        torch.save(open_clip.create_model(CLIP).state_dict(), path)
        patch.setenv('CLIP_VIT_B_32', str(path))
        yield path


@pytest.fixture(scope='session')
def openmoji_lvis_root(tmp_path_factory):
    """LVIS-like scenes: 24 for training, 4 for validation, 24 captioned."""
    root = tmp_path_factory.mktemp('openmoji') / 'lvis'
    parameters = DatasetParameters(
        train=24, val=4, captioned=24, seed=0, size=96, vocabulary='lvis')
    assert build_dataset(root, parameters, workers=1)
    return root


@pytest.fixture(scope='session')
def shorten():
    """Cut a config down: small images, small batches, two iterations."""
    return _shorten


@pytest.fixture(scope='session')
def train():
    """Train a config; give back the runner and what each iteration had."""
    return _train


@pytest.fixture(scope='session')
def differences():
    """Where a recipe differs from another, with its own values there."""
    return _differences


def _differences(recipe, other):
    """Of all that decides a run: model, data, schedule and hooks."""
    found = {}

    def compare(one, two, path):
        if isinstance(one, dict) and isinstance(two, dict):
            for key in {**one, **two}:
                compare(one.get(key), two.get(key), [*path, key])
        elif isinstance(one, list) and isinstance(two, list) and \
                len(one) == len(two):
            for number, pair in enumerate(zip(one, two)):
                compare(*pair, [*path, str(number)])
        elif one != two:
            found['.'.join(path)] = one

    for key in RUN:
        compare(recipe.get(key), other.get(key), [key])
    return found


def _shorten(cfg, factor, source_ratio=None):
    """Divide sizes in pixels by a factor; so many samples per source."""
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        _shrink_images(loader.dataset, factor)
        loader.update(num_workers=0, persistent_workers=False)
    cfg.test_dataloader = cfg.val_dataloader
    cfg.train_dataloader.batch_size = 2
    if source_ratio is not None:
        cfg.train_dataloader.batch_size = sum(source_ratio)
        cfg.train_dataloader.sampler.source_ratio = source_ratio
    cfg.train_cfg.update(max_iters=2, val_interval=2)
    cfg.default_hooks.checkpoint.interval = 2
    cfg.load_from = None


def _shrink_images(node, factor):
    """Divide the sizes in every pipeline of a part of a config."""
    if isinstance(node, dict):
        for key in SIZES:
            if key in node:
                node[key] = tuple(round(side / factor) for side in node[key])
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for value in node:
            _shrink_images(value, factor)


def _train(cfg, work_dir):
    """Run a config in a folder, under a visualizer of its own."""
    cfg.work_dir = str(work_dir)
    cfg.visualizer.name = str(work_dir)
    runner = Runner.from_cfg(cfg)
    record = RecordIterations()
    runner.register_hook(record)
    runner.train()
    return runner, record
