# Licensed under the Apache License, Version 2.0.
r"""Make a file for ImageTextDataset of your own captioned images.

Reads a folder of images with text files of the same names (one caption per
line), a table (.csv, .tsv), JSON (.json: COCO captions or a list; .jsonl:
lines) or webdataset shards (.tar). With class names, the tags are the classes
that occur in the captions. An interrupted run resumes.

Example:
    python tools/datasets/prepare_image_text.py data/mine \
        --vocabulary names.txt --synonyms synonyms.json \
        --out data/mine_captions.json
"""
import argparse
from pathlib import Path

from mmdet_clim_cli.mistakes import run_command
from mmdet_clim_cli.options import Parser, add_json, add_overwrite, add_workers


def parse_args() -> argparse.Namespace:
    parser = Parser(
        renamed={'--classes': '--vocabulary'},
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'source', help="a folder, a file, or shards, a quoted path with '*'")
    parser.add_argument(
        '--out',
        type=Path,
        required=True,
        help='.json to write, or .jsonl for many images')
    parser.add_argument(
        '--images',
        type=Path,
        help='folder of the images listed in a table or JSON (default: that '
        'of the file)')
    parser.add_argument(
        '--vocabulary',
        type=Path,
        help='file of class names: .txt with one name per line, .json, .yaml, '
        '.csv')
    parser.add_argument(
        '--synonyms',
        type=Path,
        help='JSON file of synonyms: {"couch": ["sofa"]}')
    parser.add_argument('--image-column', default='file_name')
    parser.add_argument('--caption-column', default='caption')
    parser.add_argument(
        '--tags-column',
        default='',
        help='column with class names, separated by semicolons (default: find '
        'the tags in the captions)')
    add_workers(parser)
    add_overwrite(parser)
    add_json(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from mmdet_clim.datasets.preparation.command import report
    from mmdet_clim.datasets.preparation.own_captions import (
        Columns,
        prepare_image_text,
        read_synonyms,
    )
    from mmdet_clim.datasets.vocabulary import build_vocabulary

    def prepare():
        classes, synonyms = args.vocabulary, args.synonyms
        return prepare_image_text(
            args.source,
            args.out,
            vocabulary=classes and build_vocabulary(classes),
            synonyms=synonyms and read_synonyms(synonyms),
            images=args.images,
            columns=Columns(args.image_column, args.caption_column,
                            args.tags_column),
            workers=args.workers,
            overwrite=args.overwrite)

    report(args, prepare)


if __name__ == '__main__':
    run_command(main)
