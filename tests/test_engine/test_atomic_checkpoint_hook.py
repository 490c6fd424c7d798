# Licensed under the Apache License, Version 2.0.
"""Checkpoints that are whole, and which of them a run goes on from."""
import multiprocessing
import os
import shutil
import signal
from itertools import count

import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

import mmdet_clim  # noqa: F401
from mmdet_clim.datasets.draws import DrawnSamples
from mmdet_clim.engine.hooks.atomic_checkpoint_hook import damage_of
from mmdet_clim.files import atomic_path

RUNS = count()


class OneWeight(BaseModel):

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, inputs, mode='loss'):
        return dict(loss=self.layer.weight.square().sum()) \
            if mode == 'loss' else [0]


class PlainOnes(Dataset):

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return torch.ones(1)


class Ones(DrawnSamples, PlainOnes):
    """As the data sets of this package."""


class Iteration(BaseMetric):
    """A metric that gets better all the time."""

    default_prefix = 'metric'
    value = 0

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        Iteration.value += 1
        return dict(acc=Iteration.value)


def train(folder, iterations, resume=False, **checkpoint):
    loader = dict(
        batch_size=1,
        num_workers=0,
        dataset=Ones(),
        collate_fn=lambda rows: dict(inputs=rows))
    runner = Runner(
        model=dict(type=OneWeight),
        work_dir=str(folder),
        experiment_name=f'checkpoints_{next(RUNS)}',
        train_dataloader=dict(
            sampler=dict(type='mmdet_clim.MultiSourceSampler'),
            batch_sampler=dict(type='mmdet_clim.MultiSourceBatchSampler'),
            **loader),
        val_dataloader=dict(
            sampler=dict(type='DefaultSampler', shuffle=False), **loader),
        val_evaluator=Evaluator(Iteration()),
        val_cfg=dict(),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=.01)),
        train_cfg=dict(
            type='mmdet_clim.ResumableTrainLoop',
            max_iters=iterations,
            val_interval=2),
        default_hooks=dict(
            checkpoint=dict(
                type='mmdet_clim.AtomicCheckpointHook',
                by_epoch=False,
                interval=2,
                **checkpoint),
            logger=None),
        log_level='WARNING',
        resume=resume)
    runner.train()
    return runner


def names(folder):
    return sorted(path.name for path in folder.iterdir()
                  if path.is_file() and path.suffix != '.py')


def test_what_is_kept(tmp_path):
    runner = train(tmp_path, 7, max_keep_ckpts=2, save_best='metric/acc')
    best = 'best_metric_acc_iter_7.pth'
    assert names(tmp_path) == [
        best, 'iter_6.pth', 'iter_7.pth', 'last_checkpoint'
    ]
    assert (tmp_path / 'last_checkpoint').read_text() == \
        str(tmp_path / 'iter_7.pth')
    assert runner.message_hub.get_info('best_ckpt') == str(tmp_path / best)
    assert all(damage_of(path) is None for path in tmp_path.glob('*.pth'))


@pytest.mark.parametrize('where', ['iter_6.pth', 'last_checkpoint', 'best'])
def test_a_process_that_dies_while_it_writes(tmp_path, monkeypatch, where):
    """At any file: a rename that never comes is the last that can happen."""
    train(tmp_path, 4, max_keep_ckpts=1, save_best='metric/acc')
    before = names(tmp_path)
    assert 'iter_4.pth' in before

    class Killed(BaseException):
        pass

    def die(source, target):
        if where in str(target):
            # Nor is anything cleared up.
            monkeypatch.setattr(type(tmp_path), 'unlink', lambda *_, **__: 0)
            raise Killed
        replace(source, target)

    replace = os.replace
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(os, 'replace', die)
        train(
            tmp_path, 6, resume=True, max_keep_ckpts=1, save_best='metric/acc')
    monkeypatch.undo()
    # Nothing is gone but what a whole checkpoint has replaced.
    gone = set(before) - set(names(tmp_path))
    assert gone == ({'iter_4.pth'} if where == 'best' else set())
    last = (tmp_path / 'last_checkpoint').read_text()
    assert damage_of(last) is None
    runner = train(
        tmp_path, 6, resume=True, max_keep_ckpts=1, save_best='metric/acc')
    assert runner.iter == 6
    assert [name for name in names(tmp_path) if name.endswith('.pth')
            ] == ['best_metric_acc_iter_6.pth', 'iter_6.pth']


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def empty(path):
    path.write_bytes(b'')


def flip(path):
    """One bit of one weight, which torch would load."""
    data = bytearray(path.read_bytes())
    place = data.index(
        torch.load(path)['state_dict']['layer.weight'].numpy().tobytes())
    data[place] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize('damage', [cut, empty, flip, os.unlink])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, damage):
    train(tmp_path, 6)
    # Of an earlier, longer run.
    shutil.copy(tmp_path / 'iter_4.pth', tmp_path / 'iter_40.pth')
    damage(tmp_path / 'iter_6.pth')
    runner = train(tmp_path, 7, resume=True)
    assert runner._load_from == str(tmp_path / 'iter_4.pth')
    assert runner.iter == 7
    # Two runs of one second write into one file.
    log = ''.join(path.read_text() for path in tmp_path.glob('*/*.log'))
    assert f"resuming from {tmp_path / 'iter_4.pth'}" in log
    if damage is not os.unlink:
        assert f"{tmp_path / 'iter_6.pth'}: not resumed from" in log


def test_none_is_whole(tmp_path):
    train(tmp_path, 4)
    for path in tmp_path.glob('iter_*.pth'):
        cut(path)
    with pytest.raises(RuntimeError, match='whole checkpoint.*2 damaged'):
        train(tmp_path, 6, resume=True)


def test_nothing_to_resume_is_a_first_start(tmp_path):
    assert train(tmp_path, 2, resume=True).iter == 2


def test_a_moved_work_dir(tmp_path):
    train(tmp_path / 'here', 4)
    (tmp_path / 'here').rename(tmp_path / 'there')
    runner = train(tmp_path / 'there', 6, resume=True)
    assert runner._load_from == str(tmp_path / 'there' / 'iter_4.pth')


def test_a_validation_that_was_stopped_is_done_again(tmp_path, monkeypatch):

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Iteration, 'compute_metrics', stop)
        train(tmp_path, 4)
    Iteration.value = 0
    runner = train(tmp_path, 4, resume=True)
    # After iterations 2 and 4.
    assert Iteration.value == 2
    assert runner.message_hub.get_info('last_validation') == 4


def test_a_path_holds_the_old_file_or_the_new_one(tmp_path):
    path = tmp_path / 'folder' / 'file'
    with atomic_path(path) as beside:
        beside.write_text('old')
        assert not path.exists()
    with pytest.raises(ZeroDivisionError), atomic_path(path) as beside:
        beside.write_text('half')
        raise ZeroDivisionError
    assert path.read_text() == 'old'
    assert [p.name for p in path.parent.iterdir()] == ['file']


def test_writers_of_one_path_at_the_same_time(tmp_path):
    """Each writes a whole file, whoever ends first; the last one stays."""
    path = tmp_path / 'file'
    with atomic_path(path) as first:
        first.write_text('first')
        with atomic_path(path) as second, atomic_path(path) as third:
            assert len({first, second, third}) == 3
            second.write_text('second')
            third.write_text('third')
        assert path.read_text() == 'second'
        assert first.read_text() == 'first'
    assert path.read_text() == 'first'
    assert [p.name for p in tmp_path.iterdir()] == ['file']


def _write_often(path, letter, barrier):
    barrier.wait()
    for _ in range(20):
        with atomic_path(path) as beside, open(beside, 'w') as file:
            for _ in range(20):
                file.write(letter * 5000)


def test_processes_that_write_one_path(tmp_path):
    """Whoever reads meanwhile finds a whole file, of one of them."""
    path = tmp_path / 'file'
    fork = multiprocessing.get_context('fork')
    barrier = fork.Barrier(3)
    writers = [
        fork.Process(target=_write_often, args=(path, letter, barrier))
        for letter in 'ab'
    ]
    for writer in writers:
        writer.start()
    barrier.wait()
    found = set()
    while any(writer.is_alive() for writer in writers):
        if path.exists():
            found.add(path.read_text())
    assert found <= {'a' * 100_000, 'b' * 100_000}
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert [p.name for p in tmp_path.iterdir()] == ['file']


def test_what_a_killed_writer_left_is_overwritten(tmp_path):
    path = tmp_path / 'file'
    fork = multiprocessing.get_context('fork')

    def die():
        with atomic_path(path) as beside:
            beside.write_text('half of it')
            os.kill(os.getpid(), signal.SIGKILL)

    writer = fork.Process(target=die)
    writer.start()
    writer.join()
    assert writer.exitcode == -signal.SIGKILL
    assert [p.name for p in tmp_path.iterdir()] == ['.file.writing']
    with atomic_path(path) as beside:
        beside.write_text('all')
    assert path.read_text() == 'all'
    assert [p.name for p in tmp_path.iterdir()] == ['file']


@pytest.mark.parametrize('kind', ['link', 'hard link', 'pipe'])
def test_what_came_with_a_folder_is_not_written_through(tmp_path, kind):
    """In the place of the file that is being written."""
    other = tmp_path / 'other'
    other.write_text('kept')
    planted = tmp_path / '.file.writing'
    if kind == 'link':
        planted.symlink_to(other)
    elif kind == 'hard link':
        os.link(other, planted)
    else:
        os.mkfifo(planted)
    with atomic_path(tmp_path / 'file') as beside:
        beside.write_text('new')
    assert (tmp_path / 'file').read_text() == 'new'
    assert other.read_text() == 'kept'
