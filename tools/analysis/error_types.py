# Licensed under the Apache License, Version 2.0.
r"""Show what limits base and novel AP50: localisation, classification or both.

The detections are what ``OVCocoMetric(outfile_prefix=...)`` writes:

    python tools/test.py CONFIG CHECKPOINT --cfg-options \
        test_evaluator.outfile_prefix=work_dirs/found
    python tools/analysis/error_types.py work_dirs/found.bbox.json \
        data/openmoji_coco/annotations/instances_val2017.json

The metric writes the split of the classes beside them (found.split.json).
Without that file, the split is taken from --base, LVIS's frequencies, or
OV-COCO if the file has all of its classes; otherwise there is one row for all
classes.
"""
from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmdet_clim_cli.mistakes import run_command
from mmdet_clim_cli.options import Parser, add_json, print_result

# What takes seconds to import waits until the command line is read.
if TYPE_CHECKING:
    from mmdet_clim.evaluation import ClassErrors

#: Columns of AP, and the types of errors that each leaves out.
COLUMNS = {
    'AP': (),
    'without location errors': ('duplicate', 'location'),
    'without class errors': ('class', ),
    'without class and both': ('class', 'class and location'),
}


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('detections', type=Path, help='COCO results, JSON')
    parser.add_argument('annotations', type=Path, help='COCO annotations')
    parser.add_argument(
        '--iou',
        type=float,
        default=0.5,
        help='minimum IoU of a correct detection')
    parser.add_argument(
        '--base',
        nargs='+',
        metavar='NAME',
        help='the base classes; the others are novel')
    add_json(parser)
    args = parser.parse_args()
    if not 0 < args.iou <= 1:
        parser.error(f'--iou: expected more than 0, at most 1, got {args.iou}')
    return args


def row(classes: list[ClassErrors]) -> dict[str, float]:
    """Cells of a group of classes: AP in percent, then counts of errors."""
    from mmdet_clim.evaluation import ERROR_TYPES
    first = sum((errors.first() for errors in classes), Counter())
    cells = {}
    for head, without in COLUMNS.items():
        values = [errors.average_precision(without) for errors in classes]
        cells[head] = round(100 * float(np.nanmean(values)), 1)
    return {**cells, **{kind: first[kind] for kind in ERROR_TYPES}}


def main() -> None:
    """Print the table."""
    args = parse_args()
    from mmdet_clim.datasets.coco_annotations import (
        read_coco,
        read_detections,
    )
    from mmdet_clim.evaluation import ERROR_TYPES, error_types
    from mmdet_clim.evaluation.class_split import class_split
    try:
        content = read_coco(
            args.annotations, need_names=False, need_sizes=False)
        categories = content['categories']
        detections = read_detections(
            args.detections, {image['id']
                              for image in content['images']},
            {category['id']
             for category in categories})
        groups = class_split(categories, args.base, args.detections)
    except (OSError, ValueError) as error:
        sys.exit(f'error: {error}')
    found = error_types(content['annotations'], detections, args.iou)
    ids = {category['name']: category['id'] for category in categories}
    rows = {}
    for group, names in groups.items():
        classes = [
            found[ids[name]] for name in names
            if ids[name] in found and found[ids[name]].num_objects
        ]
        rows[group] = row(classes) if classes else None
    if args.json:
        print_result(args, dict(iou=args.iou, rows=rows))
        return
    heads = ['', *COLUMNS, *ERROR_TYPES]
    print(f'IoU {args.iou}. AP over classes; the types are those of as many '
          'first detections\nof each class as it has objects.\n')
    print('| ' + ' | '.join(heads) + ' |')
    print('|---' * len(heads) + '|')
    for group, cells in rows.items():
        if cells is not None:
            print(f'| {group} | ' + ' | '.join(map(str, cells.values())) +
                  ' |')
        else:
            print(f'no class of the group {group!r} has an object')
    if 'all' in groups:
        print('\nBase and novel classes are not known: name the base classes '
              'with --base.')


if __name__ == '__main__':
    run_command(main)
