# Licensed under the Apache License, Version 2.0.
r"""Make OV-COCO's annotation files out of COCO 2017's.

Writes training boxes of the 48 base classes with all images; val files of
base, novel and all classes, with all images and with Detic's images; captions
per image with the classes that they name. An interrupted run resumes.

Example:
    python tools/datasets/prepare_ov_coco.py data/coco
"""
import argparse
from pathlib import Path

from mmdet_clim_cli.mistakes import run_command
from mmdet_clim_cli.options import Parser, add_json, add_overwrite

#: Keys of ``mmdet_clim.datasets.preparation.ov_coco.PARTS``.
PARTS = ('train', 'val', 'captions')


def parse_args() -> argparse.Namespace:
    parser = Parser(
        renamed={'--out': '--out-dir'},
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'coco', type=Path, help="COCO's folder, which contains annotations/")
    parser.add_argument(
        '--out-dir',
        type=Path,
        help='folder to write to (default: COCO/annotations)')
    parser.add_argument(
        '--parts',
        nargs='+',
        choices=PARTS,
        default=PARTS,
        help='what to make (default: all)')
    add_overwrite(parser)
    add_json(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from mmdet_clim.datasets.preparation.command import report
    from mmdet_clim.datasets.preparation.ov_coco import prepare_ov_coco
    annotations = args.coco / 'annotations'

    def prepare():
        return prepare_ov_coco(annotations, args.out_dir or annotations,
                               tuple(args.parts), args.overwrite)

    report(args, prepare)


if __name__ == '__main__':
    run_command(main)
