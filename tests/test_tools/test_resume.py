# Licensed under the Apache License, Version 2.0.
"""Trainings that are killed and resumed, as ``benchmarks/resume.py`` does."""
import importlib.util
import os
import shutil
import signal
import sys

import pytest
import torch

from mmdet_clim.engine.hooks.atomic_checkpoint_hook import damage_of

ITERATIONS = 8


@pytest.fixture(scope='module')
def resume(repository):
    """The benchmark, as a module."""
    spec = importlib.util.spec_from_file_location(
        'resume', repository / 'benchmarks' / 'resume.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules['resume'] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules['resume']


@pytest.fixture(scope='module')
def whole(resume, openmoji_root, tmp_path_factory):
    """Two ranks with two workers each, which nothing disturbs."""
    run = resume.Run(
        tmp_path_factory.mktemp('runs') / 'whole', openmoji_root,
        resume.schedule(ITERATIONS, 2))
    assert run.wait() == 0, run.log.read_text()
    return run


def test_killed_runs_end_with_the_same_bits(resume, openmoji_root, whole,
                                            tmp_path):
    """In an iteration, while a checkpoint is written, while validating."""
    options = resume.schedule(ITERATIONS, 2)
    for moment in (('iteration', 3, .1), ('checkpoint', 1, 0), ('validation',
                                                                1, 0)):
        resume.kill_at(resume.Run(tmp_path, openmoji_root, options), *moment)
        assert not (tmp_path / f'iter_{ITERATIONS}.pth').exists()
    last = resume.Run(tmp_path, openmoji_root, options)
    assert last.wait() == 0, last.log.read_text()
    log = last.log.read_text()
    assert log.count('resumed epoch: 0, iter: ') >= 2
    assert 'Advance dataloader' not in log
    expected = resume.records(whole.work_dir)
    assert {step
            for trains, step in expected
            if trains} == set(range(1, ITERATIONS + 1))
    assert {step for trains, step in expected if not trains} == {2, 4, 6, 8}
    assert resume.compare(whole.work_dir, tmp_path, ITERATIONS) == []
    # The comparison can fail.
    state = torch.load(tmp_path / f'iter_{ITERATIONS}.pth')
    next(iter(state['state_dict'].values())).view(-1)[0] += 1e-6
    torch.save(state, tmp_path / f'iter_{ITERATIONS}.pth')
    assert resume.compare(whole.work_dir, tmp_path,
                          ITERATIONS) == ['state_dict']


def test_a_rank_that_dies_ends_the_run(resume, openmoji_root, tmp_path):
    run = resume.Run(tmp_path, openmoji_root, resume.schedule(200, 2))
    assert run.wait_for((tmp_path / 'iter_2.pth').exists)
    os.kill(run.ranks.get()[1], signal.SIGKILL)
    # Without a signal to the other: it has nobody to talk to.
    assert run.wait() == 1
    last = (tmp_path / 'last_checkpoint').read_text()
    assert damage_of(last) is None


def test_a_full_disk_ends_the_run(resume, openmoji_root, whole, tmp_path):
    """A file that may not grow stands for the disk."""
    path = tmp_path / f'iter_{ITERATIONS}.pth'
    shutil.copy(whole.work_dir / path.name, path)
    (tmp_path / 'last_checkpoint').write_text(str(path))
    more = ITERATIONS + 2
    run = resume.Run(
        tmp_path,
        openmoji_root,
        resume.schedule(more, 2),
        limit=path.stat().st_size // 2)
    assert run.wait() == 1
    log = run.log.read_text()
    assert (f'RuntimeError: {tmp_path}/iter_{more}.pth: cannot be written in '
            f'iteration {more}, File too large. The last complete checkpoint: '
            f'{path}. Free disk space and run the same command') in log
    assert damage_of(path) is None
    assert not list(tmp_path.glob('.*.writing'))
    assert (tmp_path / 'last_checkpoint').read_text() == str(path)
