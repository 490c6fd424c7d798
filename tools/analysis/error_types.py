# Licensed under the Apache License, Version 2.0.
r"""Say what keeps base and novel AP50 down: places, classes, or both.

The detections are what ``OVCocoMetric(outfile_prefix=...)`` writes:

    python tools/test.py CONFIG CHECKPOINT --cfg-options \
        test_evaluator.outfile_prefix=work_dirs/found
    python tools/analysis/error_types.py work_dirs/found.bbox.json \
        data/openmoji_coco/annotations/instances_val2017.json
"""
import argparse
import json
from collections import Counter
from pathlib import Path
from typing import List

import mmdet_clim  # noqa: F401  isort: skip
import numpy as np

from mmdet_clim.command import run_command
from mmdet_clim.datasets import OVCocoDataset
from mmdet_clim.evaluation import ERROR_TYPES, ClassErrors, error_types


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('detections', type=Path, help='COCO results, JSON')
    parser.add_argument('annotations', type=Path, help='COCO annotations')
    parser.add_argument(
        '--iou', type=float, default=0.5, help='of a correct detection')
    return parser.parse_args()


def row(name: str, classes: List[ClassErrors]) -> str:
    """A group of classes as a line of a Markdown table."""
    first = sum((errors.first() for errors in classes), Counter())
    ap = [[errors.average_precision(without) for errors in classes]
          for without in ((), ('duplicate', 'location'), ('class', ),
                          ('class', 'class and location'))]
    cells = [name, *(f'{100 * np.nanmean(values):.1f}' for values in ap)]
    cells += [str(first[kind]) for kind in ERROR_TYPES]
    return '| ' + ' | '.join(cells) + ' |'


def main() -> None:
    """Print the table."""
    args = parse_args()
    content = json.loads(args.annotations.read_text())
    detections = json.loads(args.detections.read_text())
    names = {c['id']: c['name'] for c in content['categories']}
    found = error_types(content['annotations'], detections, args.iou)
    heads = [
        '', 'AP', 'without location errors', 'without class errors',
        'without class and both', *ERROR_TYPES
    ]
    print(f'IoU {args.iou}. AP over classes; the types are those of as many '
          'first detections\nof each class as it has objects.\n')
    print('| ' + ' | '.join(heads) + ' |')
    print('|---' * len(heads) + '|')
    for group in ('base', 'novel'):
        wanted = OVCocoDataset.METAINFO[f'{group}_classes']
        classes = [
            errors for number, errors in found.items()
            if names.get(number) in wanted and errors.num_objects
        ]
        if classes:
            print(row(group, classes))


if __name__ == '__main__':
    run_command(main)
