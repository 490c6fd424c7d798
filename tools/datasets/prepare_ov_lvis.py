# Licensed under the Apache License, Version 2.0.
r"""Make OV-LVIS's annotation files out of LVIS v1's training file.

Writes the training file without boxes of rare classes, the categories with
their frequencies and counts, and the class names. An interrupted run resumes.

Example:
    python tools/datasets/prepare_ov_lvis.py \
        data/lvis/annotations/lvis_v1_train.json
"""
import argparse
from pathlib import Path

from mmdet_clim_cli.mistakes import run_command
from mmdet_clim_cli.options import Parser, add_json, add_overwrite


def parse_args() -> argparse.Namespace:
    parser = Parser(
        renamed={'--out': '--out-dir'},
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('train', type=Path, help='lvis_v1_train.json')
    parser.add_argument(
        '--out-dir',
        type=Path,
        help='folder to write to (default: that of the input)')
    add_overwrite(parser)
    add_json(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from mmdet_clim.datasets.preparation.command import report
    from mmdet_clim.datasets.preparation.ov_lvis import prepare_ov_lvis

    def prepare():
        out = args.out_dir or args.train.parent
        return prepare_ov_lvis(args.train, out, args.overwrite)

    report(args, prepare)


if __name__ == '__main__':
    run_command(main)
