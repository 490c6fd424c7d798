# Licensed under the Apache License, Version 2.0.
r"""Draw the AP of each class in several runs, and the gain between two runs.

The metrics of a run contain it if ``classwise`` was set:

    python tools/test.py CONFIG CHECKPOINT --work-dir work_dirs/clim \
        --cfg-options test_evaluator.classwise=True
    python tools/analysis/class_ap.py --run 'boxes' work_dirs/boxes \
        --run 'CLIM' work_dirs/clim --out-dir work_dirs/class_ap
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mmdet_clim_cli.mistakes import run_command
from mmdet_clim_cli.options import (
    Parser,
    add_json,
    add_runs,
    print_result,
    whole,
)

# What takes seconds to import waits until the command line is read.
if TYPE_CHECKING:
    from mmdet_clim.datasets import Vocabulary

#: Keys of ``mmdet_clim.evaluation.CLASS_AP``.
KINDS = ('AP50', 'mask AP', 'box AP')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        renamed={'--out': '--out-dir'},
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add_runs(parser, 'a run')
    parser.add_argument(
        '--gain',
        nargs=2,
        metavar=('NAME', 'OVER'),
        help='the two runs of the second panel (default: the last and the '
        'first)')
    parser.add_argument(
        '--kind',
        choices=KINDS,
        default='AP50',
        help='AP50 of OV-COCO, or AP of OV-LVIS (%(default)s)')
    parser.add_argument(
        '--annotations',
        type=Path,
        help='LVIS annotations with the class frequencies, for AP of OV-LVIS')
    parser.add_argument(
        '--base',
        nargs='+',
        metavar='NAME',
        help='the base classes, for AP50 (default: those of OV-COCO)')
    parser.add_argument(
        '--num',
        type=whole(1),
        default=80,
        help='draw at most this many classes, those that change most '
        '(%(default)s)')
    parser.add_argument(
        '--out-dir',
        type=Path,
        required=True,
        help='folder of class_ap.png and class_ap.json')
    add_json(parser)
    args = parser.parse_args()
    if (args.kind == 'AP50') != (args.annotations is None):
        parser.error('--annotations: required for the kinds of OV-LVIS, and '
                     'not accepted for others')
    if args.base and args.annotations:
        parser.error('--base: not accepted with --annotations, which contain '
                     'the frequency of each class')
    return args


def vocabulary_of(args: argparse.Namespace,
                  runs: dict[str, list[dict[str, float]]]) -> Vocabulary:
    """The classes, and which of them are base."""
    from mmdet_clim.datasets import Vocabulary, build_vocabulary
    from mmdet_clim.datasets.vocabulary import vocabulary_of_words
    if args.base:
        found = [
            name for seeds in runs.values() for of in seeds for name in of
        ]
        base = vocabulary_of_words(args.base).names
        return Vocabulary(tuple(dict.fromkeys(found)), base)
    if args.annotations is None:
        return build_vocabulary(dict(dataset='mmdet_clim.OVCocoDataset'))
    return build_vocabulary(
        dict(
            dataset='mmdet_clim.OVLVISDataset',
            ann_file=str(args.annotations)))


def main() -> None:
    """Write the picture and the numbers."""
    args = parse_args()
    from mmdet_clim.datasets.preparation.files import write_json
    from mmdet_clim.evaluation import compare_class_ap, read_class_ap
    from mmdet_clim.visualization import plot_class_ap
    gain = tuple(args.gain) if args.gain else None
    try:
        runs: dict[str, list[dict[str, float]]] = {
            name: [read_class_ap(folder, args.kind) for folder in work_dirs]
            for name, work_dirs in args.run.items()
        }
        rows = compare_class_ap(runs, vocabulary_of(args, runs), gain)
    except (OSError, ValueError) as error:
        sys.exit(f'error: {error}')
    names = list(runs)
    of, over = gain or (names[-1], names[0])
    args.out_dir.mkdir(parents=True, exist_ok=True)
    write_json(args.out_dir / 'class_ap.json', rows, indent=1)
    plot_class_ap(rows, args.out_dir / 'class_ap.png', args.kind, args.num,
                  f'{of} minus {over}')
    print_result(args, rows, args.out_dir / 'class_ap.png')


if __name__ == '__main__':
    run_command(main)
