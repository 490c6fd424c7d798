# Licensed under the Apache License, Version 2.0.
r"""Make a file of CC3M's images with captions, sizes and LVIS tags.

Reads the official TSV (a caption, a tab and a URL per line) and the downloaded
images: a folder, or webdataset shards whose keys are row numbers. Missing and
unreadable images are counted by reason. An interrupted run resumes.

Example:
    python tools/datasets/prepare_cc3m.py Train_GCC-training.tsv \
        --images data/cc3m/training --file-name '{row}.jpg' \
        --categories data/lvis/annotations/lvis_v1_train_cat_info.json \
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
        help='format of file names in the folder: {row} counts from 0, '
        '{crc32} is that of the URL, {shard} counts 10000 rows, such as '
        "'{row:09d}.jpg' (default: {row}.jpg)")
    parser.add_argument(
        '--categories',
        type=Path,
        required=True,
        help="LVIS's lvis_v1_train.json, or the cat_info written by "
        'prepare_ov_lvis')
    parser.add_argument(
        '--out', type=Path, required=True, help='.jsonl or .json to write')
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
