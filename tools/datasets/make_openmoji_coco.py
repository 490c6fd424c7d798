# Licensed under the Apache License, Version 2.0.
r"""Draw OpenMoji-COCO: a detection data set that needs no download.

Scenes of OpenMoji glyphs in COCO's own layout, with COCO's category ids and
the base/novel split of OV-COCO, captions and tags; or, with
``--vocabulary lvis``, hundreds of classes with LVIS v1's file format and
rare, common and frequent classes. The same seed gives the same files.

Example:
    python tools/datasets/make_openmoji_coco.py --out-dir data/openmoji_coco \
        --train 4000 --val 500 --seed 0
"""
import argparse
import sys
from pathlib import Path

from mmdet_clim_cli.mistakes import run_command
from mmdet_clim_cli.options import Parser, add_json, add_workers, print_result


def parse_args() -> argparse.Namespace:
    parser = Parser(
        renamed={'--out': '--out-dir'},
        description=__doc__.split('\n\n')[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        '--out-dir', type=Path, required=True, help='folder of the data set')
    parser.add_argument(
        '--train', type=int, required=True, help='training scenes with boxes')
    parser.add_argument(
        '--val', type=int, required=True, help='scenes for evaluation')
    parser.add_argument('--seed', type=int, required=True, help='random seed')
    parser.add_argument(
        '--captioned',
        type=int,
        help='captioned scenes with one or two large objects (default: as '
        'many as --train)')
    parser.add_argument(
        '--size',
        type=int,
        default=256,
        help='longer side of the images in pixels')
    parser.add_argument(
        '--vocabulary', choices=('coco', 'lvis'), default='coco')
    parser.add_argument(
        '--caption-noise',
        type=float,
        nargs=3,
        metavar=('WRONG', 'MISSING', 'PARTIAL'),
        help='share of captioned scenes with captions and tags of another, '
        'share of those without any, and share of the others with several '
        'named classes of which one is left out (default: none)')
    add_workers(parser, 'data set')
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='replace an existing data set, whatever its parameters')
    add_json(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from mmdet_clim.datasets.openmoji import (
        CaptionNoise,
        DatasetParameters,
        build_dataset,
    )
    try:
        parameters = DatasetParameters(
            train=args.train,
            val=args.val,
            captioned=args.train if args.captioned is None else args.captioned,
            seed=args.seed,
            size=args.size,
            vocabulary=args.vocabulary,
            caption_noise=args.caption_noise
            and CaptionNoise(*args.caption_noise))
        made = build_dataset(args.out_dir, parameters, args.workers,
                             args.overwrite)
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f'error: {error}')
    print_result(
        args, dict(out_dir=args.out_dir, made=made), f'{args.out_dir}: ' +
        ('made' if made else 'already complete, nothing to do'))


if __name__ == '__main__':
    run_command(main)
