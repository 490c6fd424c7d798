# Licensed under the Apache License, Version 2.0.
"""Show what CLIM adds: train, evaluate, draw and compare, with no download.

From one detector trained on base boxes of OpenMoji-COCO, three runs of the
same length: boxes only; boxes, captions and tags of whole images; the same
with CLIM mosaics. What is finished is not done again, and what was stopped
goes on where it stopped. The weights of the first detector come with the
package; ``--base`` trains them anew instead and does nothing else.
"""
import argparse
import os
import subprocess
import sys
from pathlib import Path

from mmdet_clim.command import run_command
from mmdet_clim.engine import finish_training

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / 'configs' / 'openmoji'
BASE = 'faster-rcnn_r18-c4_256_base'
ROWS = {
    '(1) boxes': 'faster-rcnn_r18-c4_256_boxes',
    '(2) + captions and tags': 'faster-rcnn_r18-c4_256_captions-tags',
    '(3) + CLIM mosaics': 'faster-rcnn_r18-c4_256_captions-tags_clim',
}
CHECKPOINT_INTERVAL = 100
# Least score of a novel class in the picture: at 0.1, row 3 draws more right
# boxes than wrong ones (107 and 41 in 500 images, seed 0).
NOVEL_SCORE = 0.1


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/demo'))
    parser.add_argument(
        '--data-root', type=Path, default=Path('data/openmoji_coco'))
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument(
        '--base',
        action='store_true',
        help=f'train {BASE} with the first seed and write its weights beside '
        'its config')
    parser.add_argument(
        '--train', type=int, default=4000, help='training scenes')
    parser.add_argument(
        '--captioned', type=int, default=4000, help='captioned scenes')
    parser.add_argument(
        '--val', type=int, default=500, help='validation scenes')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        help='settings for every training, as tools/train.py takes them')
    return parser.parse_args()


def environment(args: argparse.Namespace) -> dict:
    """What the configs and the tokenizers are to know."""
    # The small models gain nothing from the tokenizers' own threads.
    return dict(
        OPENMOJI_ROOT=f'{args.data_root}/', TOKENIZERS_PARALLELISM='false')


def call(script: str, *words, args: argparse.Namespace) -> None:
    """Run one of the project's own tools and stop where it fails."""
    subprocess.run(
        [sys.executable, str(ROOT / 'tools' / script)] +
        [str(word) for word in words],
        check=True,
        env={
            **os.environ,
            **environment(args)
        })


def train(config: str, work_dir: Path, seed: int,
          args: argparse.Namespace) -> Path:
    """Train a config, or go on with it, and return its last checkpoint."""
    return finish_training(
        ROOT / 'tools' / 'train.py', CONFIGS / f'{config}.py', work_dir, seed,
        [
            f'default_hooks.checkpoint.interval={CHECKPOINT_INTERVAL}',
            *args.cfg_options
        ], environment(args))


def main() -> None:
    """Run the demo."""
    args = parse_args()
    call(
        'datasets/make_openmoji_coco.py',
        '--out',
        args.data_root,
        '--train',
        args.train,
        '--val',
        args.val,
        '--captioned',
        args.captioned,
        '--seed',
        0,
        args=args)
    if args.base:
        publish_base(args)
        return
    runs = {name: [] for name in ROWS}
    checkpoints = {}
    for seed in args.seeds:
        for name, config in ROWS.items():
            work_dir = args.work_dir / f'seed{seed}' / config
            checkpoint = train(config, work_dir, seed, args)
            runs[name].append(work_dir)
            checkpoints.setdefault(name, checkpoint)
    draw(args, checkpoints)
    call(
        'analysis/compare_runs.py',
        *(x for name, dirs in runs.items() for x in ('--run', name, *dirs)),
        '--out',
        args.work_dir,
        args=args)


def publish_base(args: argparse.Namespace) -> None:
    """Train the detector that every row starts from."""
    checkpoint = train(BASE, args.work_dir / 'base', args.seeds[0], args)
    call(
        'checkpoints/publish_weights.py',
        checkpoint,
        CONFIGS / f'{BASE}.pth',
        args=args)


def draw(args: argparse.Namespace, checkpoints: dict) -> None:
    """Mosaics as the model saw them, and detections of all rows."""
    call(
        'visualization/browse_mosaics.py',
        CONFIGS / f'{ROWS["(3) + CLIM mosaics"]}.py',
        '--out',
        args.work_dir / 'mosaics',
        '--num',
        8,
        args=args)
    call(
        'visualization/compare_detections.py',
        *(x for name, config in ROWS.items()
          for x in ('--model', name, CONFIGS / f'{config}.py',
                    checkpoints[name])),
        '--out',
        args.work_dir / 'detections.png',
        '--novel-score-thr',
        NOVEL_SCORE,
        args=args)


if __name__ == '__main__':
    run_command(main)
