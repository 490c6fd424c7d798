# Licensed under the Apache License, Version 2.0.
r"""Make OV-COCO's annotation files out of COCO 2017's.

Training boxes of the 48 base classes on every image; val files of base, novel
and all classes, with every image and with Detic's images; captions per image
with the classes that they name. A killed run goes on where it stopped.

Example:
    python tools/datasets/prepare_ov_coco.py data/coco
"""
import argparse
from pathlib import Path

from mmdet_clim.command import run_command
from mmdet_clim.datasets.preparation.command import add_overwrite, report


def parse_args() -> argparse.Namespace:
    from mmdet_clim.datasets.preparation.ov_coco import PARTS
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'coco', type=Path, help="COCO's folder, which holds annotations/")
    parser.add_argument(
        '--out',
        type=Path,
        help='folder of the files to make; COCO/annotations if not given')
    parser.add_argument(
        '--parts',
        nargs='+',
        choices=tuple(PARTS),
        default=tuple(PARTS),
        help='what to make; all if not given')
    add_overwrite(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from mmdet_clim.datasets.preparation.ov_coco import prepare_ov_coco
    annotations = args.coco / 'annotations'

    def prepare():
        return prepare_ov_coco(annotations, args.out or annotations,
                               tuple(args.parts), args.overwrite)

    print(report('prepare_ov_coco', prepare))


if __name__ == '__main__':
    run_command(main)
