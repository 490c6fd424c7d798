# Licensed under the Apache License, Version 2.0.
import json
import multiprocessing
from pathlib import Path

import pytest
from mmengine.config import Config
from torch.utils.data import _utils

from mmdet_clim.engine import finish_training, resolve_run
from mmdet_clim.evaluation import last_metrics, read_scalars

# A line through points: MMEngine's own runner, seconds of work.
CONFIG = """
custom_imports = dict(imports=['line_of_training_runs'])
model = dict(type='LineOfTrainingRuns')
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='PointsOfTrainingRuns'))
val_dataloader = train_dataloader
val_evaluator = dict(type='SlopeOfTrainingRuns')
train_cfg = dict(type='IterBasedTrainLoop', max_iters=4, val_interval=2)
val_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='SGD', lr=.1))
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1))
log_processor = dict(by_epoch=False)
visualizer = dict(
    type='Visualizer',
    name='visualizer',
    vis_backends=[dict(type='LocalVisBackend')])
"""
MODULE = """
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS


@MODELS.register_module()
class LineOfTrainingRuns(BaseModel):

    def __init__(self, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.slope = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x, y, mode='tensor'):
        if mode == 'loss':
            return dict(loss=((self.slope * x - y)**2).mean())
        return [self.slope.item()]


@DATASETS.register_module()
class PointsOfTrainingRuns(torch.utils.data.Dataset):

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return dict(x=torch.ones(1), y=torch.ones(1) * 2)


@METRICS.register_module()
class SlopeOfTrainingRuns(BaseMetric):

    def process(self, data_batch, data_samples):
        self.results += data_samples

    def compute_metrics(self, results):
        return dict(slope=results[0])
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    (tmp_path / 'line_of_training_runs.py').write_text(MODULE)
    (tmp_path / 'line.py').write_text(CONFIG)
    monkeypatch.syspath_prepend(tmp_path)

    def run(name='run', seed=0, report=None, overwrite=False, **options):
        cfg = resolve_run(tmp_path / 'line.py', tmp_path / name, seed, options)
        return finish_training(cfg, overwrite, report)

    return run


def scalars(work_dir):
    return read_scalars(work_dir)


def test_two_runs_in_one_process(run, tmp_path):
    told = []
    assert run(
        'a', report=lambda *told_: told.append(told_)) == Path(
            tmp_path, 'a', 'iter_4.pth')
    iterations = [('iteration', i, 4) for i in range(5)]
    validation = [('validation', 1, 2), ('validation', 2, 2)]
    assert told == [*iterations[:3], *validation, *iterations[3:], *validation]
    # the second writes into its own work dir
    run('b', **{'optim_wrapper.optimizer.lr': .2})
    # the gradient is 2 (slope - 2): 2 - slope shrinks by 0.8, or 0.6
    for name, factor in (('a', .8), ('b', .6)):
        found = scalars(tmp_path / name)
        assert len(found['loss']) == 4
        assert found['slope'] == [
            (2, pytest.approx(2 - 2 * factor**2)),
            (4, pytest.approx(2 - 2 * factor**4)),
        ]


def test_the_processes_that_load_end_by_themselves(run, monkeypatch):
    """Torch would wait so long for each, then kill it."""
    monkeypatch.setattr(_utils, 'MP_STATUS_CHECK_INTERVAL', 60)
    others = set(multiprocessing.active_children())
    seen = set()
    run(report=lambda *_: seen.update(multiprocessing.active_children()),
        **{
            f'{part}_dataloader.{key}': value
            for part in ('train', 'val')
            for key, value in (('num_workers', 1), ('persistent_workers',
                                                    True))
        })
    assert [process.exitcode for process in seen - others] == [0, 0]


def test_done_once_and_not_taken_for_another(run, tmp_path):
    last = run()
    last.unlink()
    # as the record says
    assert run() == last and not last.exists()
    for differs, message in ((dict(seed=1), 'randomness.seed is 0, wanted 1'),
                             ({
                                 'train_cfg.max_iters': 9000
                             }, 'train_cfg.max_iters is 4, wanted 9000')):
        with pytest.raises(FileExistsError, match=message):
            run(**differs)
    assert run(seed=1, overwrite=True) == last and last.exists()
    record = json.loads((tmp_path / 'run/fingerprint.json').read_text())
    assert record['config']['randomness'] == dict(seed=1)


class Stop(Exception):
    """Where a run is killed."""


@pytest.mark.parametrize('at', [('iteration', 1, 4), ('validation', 1, 2),
                                ('iteration', 3, 4), ('iteration', 4, 4)])
def test_a_stopped_run_goes_on(run, tmp_path, at):
    whole = run('whole')

    def report(*told):
        if told == at:
            raise Stop

    with pytest.raises(Stop):
        run('stopped', report=report)
    assert not (tmp_path / 'stopped' / 'finished').exists()
    assert run('stopped').name == whole.name
    metrics = last_metrics(scalars(tmp_path / 'stopped'), '')
    assert metrics['slope'] == pytest.approx(2 - 2 * .8**4)


def test_stopped_in_its_last_validation(run, tmp_path):
    """Where the last checkpoint is there, and its metrics are not."""
    seen = []

    def report(*told):
        seen.append(told)
        if seen.count(('validation', 2, 2)) == 2:
            raise Stop

    with pytest.raises(Stop):
        run(report=report)
    assert scalars(tmp_path / 'run')['slope'][-1][0] == 2
    again = []
    run(report=lambda *told: again.append(told))
    assert again == [('iteration', 4, 4), ('validation', 1, 2),
                     ('validation', 2, 2)]
    found = scalars(tmp_path / 'run')['slope']
    assert found[-1] == (4, pytest.approx(2 - 2 * .8**4))


def test_the_config_of_a_run(tmp_path):
    (tmp_path /
     'c.py').write_text('randomness = dict(deterministic=True)\nlr = 1\n')
    cfg = resolve_run(tmp_path / 'c.py', tmp_path / 'w', 3, dict(lr=2))
    assert isinstance(cfg, Config)
    assert (cfg.lr, cfg.work_dir) == (2, str(tmp_path / 'w'))
    assert cfg.randomness == dict(deterministic=True, seed=3)
