# Licensed under the Apache License, Version 2.0.
"""Show the effect of CLIM: train, evaluate, draw and compare, offline.

Starting from a detector trained on base boxes of OpenMoji-COCO, runs of equal
length: boxes only; boxes, captions and tags of whole images; the same with
CLIM mosaics. With several seeds there may be more rows. Finished runs are not
repeated, and interrupted ones are resumed. The weights of the first detector
are part of the package; ``--base`` only trains these again.
"""
import argparse
import json
import math
import os
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from mmdet_clim_cli.calls import call
from mmdet_clim_cli.mistakes import INTERRUPTED, is_mistake, one_line
from mmdet_clim_cli.options import Parser, add_seeds, key_value, whole

# Whatever takes seconds to import is imported where it is needed: for --help,
# and for the processes that draw the data, which read this file again.

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / 'configs' / 'openmoji'
TOOLS = ROOT / 'tools'
BASE = 'faster-rcnn_r18-c4_256_base'


class Row(NamedTuple):
    """A row of the table."""

    name: str
    config: str
    #: Only with several seeds.
    seeds_only: bool = False


def _rows(boxes: str, captions: str, clim: str,
          equal_views: str) -> tuple[Row, ...]:
    return (
        Row('(1) boxes', boxes),
        Row('(2) + captions and tags', captions),
        Row('(3) + CLIM mosaics', clim),
        Row('(4) as (2), as many views as (3)', equal_views, seeds_only=True),
    )


ROWS = _rows('demo_boxes',
             'demo_captions-tags_best_softmax_compete_more-whole',
             'demo_clim_best_softmax_2x2_compete_more-whole',
             'demo_captions-tags_best_softmax_compete_equal-views')
#: The whole network, twice the iterations.
LONG_ROWS = _rows('faster-rcnn_r18-c4_256_boxes',
                  'faster-rcnn_r18-c4_256_captions-tags',
                  'faster-rcnn_r18-c4_256_captions-tags_clim',
                  'faster-rcnn_r18-c4_256_captions-tags_equal-views')
#: Of the rows: whose mosaics are drawn, and which is for the user's own
#: photographs.
CLIM_ROW = 2
CHECKPOINT_INTERVAL = 100
#: Scenes that are drawn, and trained on for some steps, to see how long all
#: of it will take.
TRIAL = dict(train=16, val=8, captioned=16)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/demo'))
    parser.add_argument(
        '--data-root', type=Path, default=Path('data/openmoji_coco'))
    add_seeds(parser, default=[0])
    parser.add_argument(
        '--long',
        action='store_true',
        help='train the whole network, for twice as many iterations')
    parser.add_argument(
        '--base',
        action='store_true',
        help=f'train {BASE} with the first seed and write its weights beside '
        'its config')
    parser.add_argument(
        '--train', type=whole(1), default=4000, help='training scenes')
    parser.add_argument(
        '--captioned', type=whole(1), default=4000, help='captioned scenes')
    parser.add_argument(
        '--val', type=whole(1), default=500, help='validation scenes')
    parser.add_argument(
        '--workers',
        type=whole(1),
        default=os.cpu_count() or 1,
        help='number of processes that draw the scenes')
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='start from scratch, whatever the work dir contains, and replace '
        'data that were drawn with other parameters')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        type=key_value,
        default=[],
        help='settings for every training, as for tools/train.py')
    args = parser.parse_args()
    if set("'\\\n") & set(str(args.data_root)):
        # MMEngine writes it between quotes into the text of the configs.
        parser.error("--data-root: expected a path without ' and \\, which "
                     f'configs cannot contain, got {args.data_root}')
    return args


class Run(NamedTuple):
    """A training of the demo."""

    row: Row
    seed: int
    work_dir: Path

    @property
    def step(self) -> str:
        """Its name among the steps."""
        return f'{self.row.name}, seed {self.seed}'

    @property
    def found(self) -> Path:
        """What it finds in the validation images, without the suffix."""
        return self.work_dir / 'found'


def runs_of(args: argparse.Namespace) -> list[Run]:
    """All trainings, in order; those of one seed first.

    What only several seeds have comes last.
    """
    if args.base:
        return [
            Run(Row(BASE, BASE), args.seeds[0], args.work_dir / 'base'),
        ]
    rows = [
        row for row in (LONG_ROWS if args.long else ROWS)
        if len(args.seeds) > 1 or not row.seeds_only
    ]
    return [
        Run(row, seed, args.work_dir / f'seed{seed}' / row.config)
        for seeds_only in (False, True) for seed in args.seeds for row in rows
        if row.seeds_only == seeds_only
    ]


class Demo:
    """The steps, and what they have in common."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.runs = runs_of(args)
        self.clim_row = (LONG_ROWS if args.long else ROWS)[CLIM_ROW]
        self.scenes = dict(
            train=args.train, val=args.val, captioned=args.captioned)

    def config(self, run: Run):
        """The resolved config of a run."""
        from mmengine.config import DictAction

        from mmdet_clim.engine import resolve_run
        options = argparse.ArgumentParser()
        options.add_argument('--cfg-options', nargs='+', action=DictAction)
        words = self.args.cfg_options
        given = options.parse_args(
            ['--cfg-options', *words] if words else []).cfg_options
        return resolve_run(
            CONFIGS / f'{run.row.config}.py', run.work_dir, run.seed, {
                'default_hooks.checkpoint.interval': CHECKPOINT_INTERVAL,
                'val_evaluator.outfile_prefix': str(run.found),
                **(given or {})
            })

    def expect(self) -> dict[str, dict[str, float]]:
        """The steps that are left, with the seconds that they will take."""
        from mmdet_clim.datasets.openmoji import is_finished
        root = self.args.data_root
        plan = dict(data=dict(scene=1.))
        with ExitStack() as stack:
            if is_finished(root, self.parameters(), self.args.overwrite):
                self.check()
            else:
                root = Path(
                    stack.enter_context(tempfile.TemporaryDirectory()), 'coco')
                # The processes that draw import for some seconds first.
                plan['data']['scene'] = 10 + self._time_drawing(root) * sum(
                    self.scenes.values()) / self.args.workers
            stack.enter_context(root_of_data(root))
            times: dict[str, dict[str, float]] = {}
            for run in self.runs:
                if self.args.overwrite or not (run.work_dir /
                                               'finished').exists():
                    plan[run.step] = self._expect_run(run, times)
        if self.args.base:
            return dict(plan, weights=dict(file=1.))
        return dict(plan, pictures=dict(picture=15.), table=dict(file=5.))

    def parameters(self):
        """Of the data."""
        from mmdet_clim.datasets.openmoji import DatasetParameters
        return DatasetParameters(seed=0, **self.scenes)

    def _time_drawing(self, folder: Path) -> float:
        """Seconds that a process takes for a scene."""
        from mmdet_clim.datasets.openmoji import (
            CHUNK,
            DatasetParameters,
            build_dataset,
        )
        times: list[float] = []

        def watch(made: Iterable, total: int) -> Iterator:
            for item in made:
                times.append(time.monotonic())
                yield item

        build_dataset(
            folder, DatasetParameters(seed=0, **TRIAL), workers=1, watch=watch)
        # The first ones read the glyphs; those of a part come at once.
        last = times[-TRIAL['captioned']:]
        return (last[-1] - last[0]) / (len(last) - CHUNK)

    def _expect_run(self, run: Run,
                    times: dict[str, dict[str, float]]) -> dict[str, float]:
        from mmdet_clim.engine import time_training
        cfg = self.config(run)
        if run.row.config not in times:
            times[run.row.config] = time_training(cfg)
        seconds = times[run.row.config]
        batches = math.ceil(self.scenes['val'] / cfg.val_dataloader.batch_size)
        iterations = cfg.train_cfg.max_iters - self._done(run)
        return dict(
            start=seconds['start'],
            iteration=max(0, iterations) * seconds['iteration'],
            validation=batches * seconds['validation'])

    def _done(self, run: Run) -> int:
        """Iterations of the last checkpoint."""
        last = run.work_dir / 'last_checkpoint'
        if self.args.overwrite or not last.exists():
            return 0
        # Cut short, it names none: the run goes on from the last whole one.
        found = re.search(r'_(\d+)\.pth\s*$', last.read_text(errors='replace'))
        return int(found[1]) if found else 0

    def draw_data(self, report) -> None:
        """Make OpenMoji-COCO, or find it made."""
        from mmdet_clim.datasets.openmoji import build_dataset

        def watch(made: Iterable, total: int) -> Iterator:
            for done, item in enumerate(made):
                report('scene', done, total)
                yield item

        build_dataset(
            self.args.data_root,
            self.parameters(),
            workers=self.args.workers,
            overwrite=self.args.overwrite,
            watch=watch)

    def check(self) -> None:
        """Refuse work dirs of other runs before any training begins."""
        from mmdet_clim.engine import check_run, run_fingerprint
        for run in self.runs:
            check_run(run.work_dir, run_fingerprint(self.config(run)),
                      self.args.overwrite)

    def train(self, run: Run, report=None) -> Path:
        """Train, or go on, or find it trained; the last checkpoint."""
        from mmdet_clim.engine import finish_training
        return finish_training(self.config(run), self.args.overwrite, report)

    def draw(self) -> None:
        """Mosaics as the model saw them, and what the rows find."""
        first = [run for run in self.runs if run.seed == self.args.seeds[0]]
        call(TOOLS / 'visualization/browse_mosaics.py',
             CONFIGS / f'{self.clim_row.config}.py', '--out-dir',
             self.args.work_dir / 'mosaics', '--num', 8)
        call(
            TOOLS / 'visualization/compare_detections.py',
            CONFIGS / f'{self.clim_row.config}.py',
            *(x for run in first
              for x in ('--found', run.row.name, f'{run.found}.bbox.json')),
            '--out', self.args.work_dir / 'detections.png')

    def compare(self) -> None:
        """Print and write the table."""
        dirs: dict[str, list[Path]] = {}
        for run in self.runs:
            dirs.setdefault(run.row.name, []).append(run.work_dir)
        call(
            TOOLS / 'analysis/compare_runs.py',
            *(x for name, places in dirs.items()
              for x in ('--run', name, *places)), '--out-dir',
            self.args.work_dir)

    def where_next(self, checkpoint: Path) -> str:
        """Commands for one's own photographs, that run as they are."""
        scene, words = self._first_scene()
        detector = [
            '--config', CONFIGS / f'{self.clim_row.config}.py', '--checkpoint',
            checkpoint
        ]
        own = command('infer.py', scene, *detector, '--vocabulary', *words,
                      '--score-thr', 0.1, '--out-dir',
                      self.args.work_dir / 'own')
        return ('Next, your own photographs instead of this scene, and your '
                f'own words:\n  {own}\nor in the browser:\n  '
                f'{command("app.py", *detector)}')

    def _first_scene(self) -> tuple[Path, list[str]]:
        """The first validation image, and the classes that it shows."""
        file = self.args.data_root / 'annotations/instances_val2017.json'
        coco = json.loads(file.read_text())
        image = min(coco['images'], key=lambda image: image['id'])
        names = {c['id']: c['name'] for c in coco['categories']}
        words = {
            names[entry['category_id']]
            for entry in coco['annotations']
            if entry['image_id'] == image['id']
        }
        return (self.args.data_root / 'val2017' / image['file_name'],
                sorted(words))


def command(script: str, *words) -> str:
    """A command line of one of the project's tools, as short as may be."""
    # Not resolved: an environment's Python is a link.
    python = Path(sys.executable)
    return shlex.join(
        str(_from_here(Path(word)) if isinstance(word, Path) else word)
        for word in (python, TOOLS / script, *words))


def _from_here(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


@contextmanager
def root_of_data(folder: Path) -> Iterator[None]:
    """Have the configs look for their data in a folder meanwhile."""
    before = os.environ['OPENMOJI_ROOT']
    os.environ['OPENMOJI_ROOT'] = f'{folder}/'
    try:
        yield
    finally:
        os.environ['OPENMOJI_ROOT'] = before


def run_steps(demo: Demo, steps) -> None:
    """Do what is left to do, a line each."""
    from mmdet_clim.engine.steps import output_to
    args = demo.args
    with steps.step('data', args.work_dir / 'demo.log') as report:
        demo.draw_data(report)
    with output_to(args.work_dir / 'demo.log'):
        demo.check()
    checkpoints = {}
    for run in demo.runs:
        if run.step in steps.names:
            with steps.step(run.step, run.work_dir / 'output.log') as report:
                report('start', 0, 1)
                checkpoints[run] = demo.train(run, report)
        else:
            with output_to(run.work_dir / 'output.log'):
                checkpoints[run] = demo.train(run)
    if args.base:
        with steps.step('weights', args.work_dir / 'demo.log'):
            call(TOOLS / 'checkpoints/publish_weights.py',
                 *checkpoints.values(), CONFIGS / f'{BASE}.pth')
        return
    with steps.step('pictures', args.work_dir / 'demo.log'):
        demo.draw()
    with steps.step('table'):
        demo.compare()
    steps.say(f'Pictures, curves and logs: {args.work_dir}')
    steps.say(
        demo.where_next(
            next(checkpoint for run, checkpoint in checkpoints.items()
                 if run.row == demo.clim_row)))


def main() -> None:
    """Run the demo."""
    args = parse_args()
    # The small models gain nothing from the tokenizers' own threads.
    os.environ.update(
        OPENMOJI_ROOT=f'{args.data_root}/', TOKENIZERS_PARALLELISM='false')
    print('== demo: timing a few iterations', flush=True)
    from mmdet_clim.engine.steps import Steps, duration, output_to
    demo = Demo(args)
    try:
        with output_to(args.work_dir / 'demo.log'):
            if args.cfg_options:
                # Before anything is timed.
                demo.config(demo.runs[0])
            plan = demo.expect()
        steps = Steps('demo', plan)
        steps.say(f'== demo: about {duration(steps.left())} on this machine '
                  f'({os.cpu_count()} cores)')
        run_steps(demo, steps)
    except Exception as error:
        mistakes = (OSError, RuntimeError, ValueError)
        if not isinstance(error, mistakes) and not is_mistake(error):
            raise
        sys.exit(f'error: {one_line(error)}')
    except KeyboardInterrupt:
        print('stopped; the same command resumes here', file=sys.stderr)
        sys.exit(INTERRUPTED)


if __name__ == '__main__':
    main()
