# Licensed under the Apache License, Version 2.0.
import random

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

import mmdet_clim  # noqa: F401  (lets torch.load read MMEngine checkpoints)
from mmdet_clim.engine import IterationSeedHook


class AugmentedDataset(Dataset):
    """Draws from all three generators, as transforms do."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return torch.tensor([
            float(index),
            np.random.normal(),
            random.random(),
            torch.rand(()).item()
        ])


class DrawingModel(BaseModel):
    """Draws as RPN samplers (torch), objectives (numpy) and dropout do.

    How much it draws depends on the data.
    """

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, inputs, mode='tensor'):
        if mode != 'loss':
            return [torch.rand(3), np.random.rand(2)]
        inputs = torch.stack(inputs)
        keep = torch.randperm(len(inputs))[:1 + int(inputs[0, 0]) % 2]
        weight = 1 + np.random.rand(1 + int(inputs[0, 0]) % 3)[-1]
        hidden = nn.functional.dropout(inputs[keep], p=.3)
        return dict(loss=weight * random.random() *
                    self.layer(hidden).pow(2).mean())


class Nothing(BaseMetric):
    default_prefix = 'nothing'

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return dict(zero=0.)


class Record(Hook):
    """The losses and the data of each iteration."""

    def __init__(self):
        self.losses, self.data = [], []

    def after_train_iter(self,
                         runner,
                         batch_idx,
                         data_batch=None,
                         outputs=None):
        self.losses.append(outputs['loss'].item())
        self.data.append(torch.stack(data_batch['inputs']))


def collate(rows):
    return dict(inputs=rows)


def train(work_dir, name, iters, hooks, num_workers=0, resume=False):
    record = Record()
    loader = dict(
        batch_size=2,
        num_workers=num_workers,
        dataset=AugmentedDataset(),
        collate_fn=collate)
    Runner(
        model=dict(type=DrawingModel),
        work_dir=str(work_dir),
        experiment_name=name,
        train_dataloader=dict(
            sampler=dict(type='InfiniteSampler', shuffle=True), **loader),
        val_dataloader=dict(
            sampler=dict(type='DefaultSampler', shuffle=False), **loader),
        val_evaluator=Evaluator(Nothing()),
        val_cfg=dict(),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=.001, momentum=.9)),
        train_cfg=dict(by_epoch=False, max_iters=iters, val_interval=2),
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=3),
            logger=None),
        custom_hooks=[*hooks, record],
        randomness=dict(seed=7),
        log_level='ERROR',
        resume=resume).train()
    return record


@pytest.mark.parametrize('num_workers', [0, 2])
def test_resumed_run_continues_the_same(data_is_drawn_again_on_resume,
                                        tmp_path, num_workers):
    whole = train(tmp_path / 'whole', f'whole{num_workers}', 6,
                  [IterationSeedHook()], num_workers)
    first = train(tmp_path / 'parts', f'first{num_workers}', 3,
                  [IterationSeedHook()], num_workers)
    second = train(
        tmp_path / 'parts',
        f'second{num_workers}',
        6, [IterationSeedHook()],
        num_workers,
        resume=True)
    assert first.losses + second.losses == whole.losses
    for resumed, expected in zip(second.data, whole.data[3:]):
        assert torch.equal(resumed, expected)
    assert len(set(whole.losses)) == 6


def test_without_the_hook_it_does_not(tmp_path):
    """The case is hard enough: it fails where the hook is left out."""
    whole = train(tmp_path / 'whole', 'bare_whole', 6, [])
    train(tmp_path / 'parts', 'bare_first', 3, [])
    second = train(tmp_path / 'parts', 'bare_second', 6, [], resume=True)
    assert second.losses != whole.losses[3:]


class FixedRunner:
    """What the hook reads of a runner."""

    def __init__(self, seed, iteration):
        self.seed = seed
        self.iter = iteration


def draws(hook, runner):
    hook.before_train_iter(runner, 0)
    values = random.random(), np.random.rand(), torch.rand(()).item()
    hook.after_train_iter(runner, 0)
    return values


def test_draws_depend_on_seed_and_iteration_only():
    hook = IterationSeedHook()
    seen = draws(hook, FixedRunner(0, 5))
    torch.rand(3), np.random.rand(3), random.random()
    assert draws(hook, FixedRunner(0, 5)) == seen
    assert draws(IterationSeedHook(seed=0), FixedRunner(9, 5)) == seen
    for other in (FixedRunner(0, 6), FixedRunner(1, 5)):
        assert not set(draws(hook, other)) & set(seen)


def draw_on_rank(rank, folder):
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    values = draws(IterationSeedHook(), FixedRunner(0, 5))
    torch.save(values, f'{folder}/{rank}.pth')
    dist.destroy_process_group()


def test_ranks_draw_differently(tmp_path):
    mp.start_processes(
        draw_on_rank, (str(tmp_path), ), nprocs=2, start_method='fork')
    first, second = (torch.load(tmp_path / f'{r}.pth') for r in range(2))
    assert first == draws(IterationSeedHook(), FixedRunner(0, 5))
    assert not set(first) & set(second)


def test_generators_are_put_back():
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    expected = random.random(), np.random.rand(), torch.rand(())
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    draws(IterationSeedHook(), FixedRunner(0, 5))
    assert (random.random(), np.random.rand(), torch.rand(())) == expected


@pytest.mark.parametrize('seed', [-1, 1.5, '3'])
def test_wrong_seed(seed):
    with pytest.raises(ValueError, match='seed.*' + str(seed)):
        IterationSeedHook(seed=seed)
