# Licensed under the Apache License, Version 2.0.
r"""Intervals of AP50 and of its differences, by a bootstrap over images.

The detections of a run are written by OVCocoMetric with outfile_prefix:

    python tools/test.py CONFIG CHECKPOINT --work-dir work_dirs/clim \
        --cfg-options test_evaluator.outfile_prefix=work_dirs/clim/found
    python tools/analysis/bootstrap_ap.py \
        --annotations data/coco_small/annotations/instances_val2017.json \
        --run 'boxes' work_dirs/boxes/found.bbox.json \
        --run 'CLIM' work_dirs/clim/found.bbox.json --out work_dirs/ap.json

Several files of a run are its seeds, whose AP is averaged. The intervals
reflect the choice of images, not of seeds.
"""
import argparse
import json
import sys
from pathlib import Path

import numpy as np

from mmdet_clim_cli.mistakes import one_line, run_command
from mmdet_clim_cli.options import (
    Parser,
    add_json,
    add_runs,
    print_result,
    whole,
)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        renamed={'--classes': '--group'},
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--annotations',
        type=Path,
        required=True,
        help='annotations that were used for evaluation')
    add_runs(parser, 'a run and what it found, a file per seed')
    parser.add_argument(
        '--group',
        dest='classes',
        nargs='+',
        metavar='NAME',
        help='an additional group of classes, beside base and novel')
    parser.add_argument('--resamples', type=whole(2), default=1000)
    parser.add_argument(
        '--out', type=Path, required=True, help='.json file to write')
    add_json(parser)
    return parser.parse_args()


def groups_of(names, further) -> dict[str, np.ndarray]:
    """Which classes of the file are in each group."""
    from mmdet_clim.datasets import OVCocoDataset
    meta = OVCocoDataset.METAINFO
    unknown = sorted(set(further or ()) - set(names))
    if unknown:
        raise ValueError(f'--group: the file has no class {unknown}')
    groups = dict(
        base=meta['base_classes'],
        novel=meta['novel_classes'],
        all=meta['classes'])
    if further:
        groups['chosen'] = further
    return {
        group: np.isin(names, members)
        for group, members in groups.items()
    }


def main() -> None:
    """Write the intervals and show them."""
    args = parse_args()
    from mmdet_clim.datasets.coco_annotations import (
        read_coco,
        read_detections,
    )
    from mmdet_clim.datasets.preparation.files import write_json
    from mmdet_clim.evaluation import ResampledAP
    try:
        content = read_coco(
            args.annotations, need_names=False, need_sizes=False)
        images = {image['id'] for image in content['images']}
        ap = ResampledAP(content, args.resamples)
        groups = groups_of(ap.names, args.classes)
        of_run: dict[str, np.ndarray] = {
            name:
            np.mean([ap(read_detections(file, images)) for file in files], 0)
            for name, files in args.run.items()
        }
        groups = with_objects(groups, next(iter(of_run.values()))[0])
        if not groups:
            raise ValueError(
                f'{args.annotations}: expected a box of a class of OV-COCO, '
                'or of --group, found none')
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f'error: {one_line(error)}')
    rows: list[dict] = []
    for name, values in of_run.items():
        means = {
            group: _mean(values, members)
            for group, members in groups.items()
        }
        row = dict(
            name=name,
            seeds=len(args.run[name]),
            ap50={
                group: _interval(of)
                for group, of in means.items()
            },
            classes={
                of_class: round(100 * float(value), 2)
                for of_class, value in zip(ap.names, values[0])
                if np.isfinite(value)
            },
            differences={})
        for other in rows:
            row['differences'][other['name']] = {
                group:
                _interval(means[group] - _mean(of_run[other['name']], members))
                for group, members in groups.items()
            }
        rows.append(row)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.out, rows, indent=1)
    print_result(args, rows, '\n'.join(map(_described, rows)))


def with_objects(groups: dict[str, np.ndarray],
                 ap: np.ndarray) -> dict[str, np.ndarray]:
    """The groups of which a class has an object, by the AP of the classes."""
    return {
        group: members
        for group, members in groups.items() if np.isfinite(ap[members]).any()
    }


def _mean(values: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Percent, over the classes of a group that have an object."""
    known = np.ma.masked_invalid(values[:, members])
    return 100 * known.mean(1).filled(np.nan)


def _described(row: dict) -> str:
    """The lines of a run: its AP50, and the differences to those before."""
    return '\n'.join([
        f'{row["name"]} {json.dumps(row["ap50"])}',
        *(f'    minus {other}: {json.dumps(gaps)}'
          for other, gaps in row['differences'].items())
    ])


def _interval(values: np.ndarray) -> dict[str, float]:
    """The value of the images themselves, and 95 % of the draws.

    Those count that drew an object of the group.
    """
    low, high = np.nanpercentile(values[1:], [2.5, 97.5])
    return dict(
        mean=round(float(values[0]), 2),
        low=round(float(low), 2),
        high=round(float(high), 2))


if __name__ == '__main__':
    run_command(main)
