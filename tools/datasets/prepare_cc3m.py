# Licensed under the Apache License, Version 2.0.
r"""Make a file of CC3M's images with captions, sizes and LVIS tags.

From the official TSV (a caption, a tab and a URL a line) and the images that
were downloaded: a folder, or webdataset shards whose keys are row numbers.
Missing and unreadable images are counted by reason. A killed run goes on
where it stopped.

Example:
    python tools/datasets/prepare_cc3m.py Train_GCC-training.tsv \\
        --images data/cc3m/training --file-name '{row}.jpg' \\
        --categories data/lvis/annotations/lvis_v1_train_cat_info.json \\
        --out data/cc3m/cc3m_train_tags.jsonl
"""
import argparse
from pathlib import Path

from mmdet_clim_cli.mistakes import run_command
from mmdet_clim_cli.options import Parser, add_json, add_overwrite, add_workers


def parse_args() -> argparse.Namespace:
    parser = Parser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('tsv', type=Path, help='captions and URLs')
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--images', type=Path, help='folder of the images')
    source.add_argument(
        '--shards', help="webdataset shards, a quoted path with '*'")
    parser.add_argument(
        '--file-name',
        default='{row}.jpg',
        help='what an image is called in the folder: {row} from 0, {crc32} '
        "of the URL, {shard} of 10000 rows, such as '{row:09d}.jpg'; "
        '{row}.jpg if not given')
    parser.add_argument(
        '--categories',
        type=Path,
        required=True,
        help="LVIS's lvis_v1_train.json, or prepare_ov_lvis's cat_info")
    parser.add_argument(
        '--out', type=Path, required=True, help='.jsonl or .json')
    add_workers(parser)
    add_overwrite(parser)
    add_json(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from mmdet_clim.datasets.preparation.cc3m import prepare_cc3m
    from mmdet_clim.datasets.preparation.command import report

    def prepare():
        return prepare_cc3m(
            args.tsv,
            args.out,
            args.categories,
            images=args.images,
            file_name=args.file_name,
            shards=args.shards,
            workers=args.workers,
            overwrite=args.overwrite)

    report(args, prepare)


if __name__ == '__main__':
    run_command(main)
