# Licensed under the Apache License, Version 2.0.
r"""Make the data of configs/coco_small out of COCO's val2017.

The 5,000 photographs of val2017 are split, three in ten for evaluation, and
resized to 256 pixels along the longer side. Those for training have boxes of
the 48 base classes, and captions with the classes that they name; those for
evaluation have boxes of all 65. An interrupted run resumes. Photographs with
an existing split are used as they are.

Example:
    python tools/datasets/prepare_coco_small.py data/coco \
        --out-dir data/coco_small
"""
import argparse
from pathlib import Path

from mmdet_clim_cli.mistakes import run_command
from mmdet_clim_cli.options import Parser, add_json, add_overwrite


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        renamed={'--out': '--out-dir'},
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'source',
        type=Path,
        help="COCO's folder with val2017/, annotations/instances_val2017.json "
        'and annotations/captions_val2017.json')
    parser.add_argument(
        '--out-dir',
        type=Path,
        default=Path('data/coco_small'),
        help='folder of images/ and annotations/')
    parser.add_argument(
        '--seed', type=int, default=0, help='random seed of the split')
    parser.add_argument(
        '--development',
        action='store_true',
        help='split the training photographs again, to choose settings '
        'without those for evaluation')
    add_overwrite(parser)
    add_json(parser)
    return parser.parse_args()


def main() -> None:
    """Make the files."""
    args = parse_args()
    from mmdet_clim.datasets.preparation.coco_small import prepare_coco_small
    from mmdet_clim.datasets.preparation.command import report
    report(
        args, lambda: prepare_coco_small(args.source, args.out_dir, args.seed,
                                         args.development, args.overwrite))


if __name__ == '__main__':
    run_command(main)
