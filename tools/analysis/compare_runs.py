# Licensed under the Apache License, Version 2.0.
"""Compare finished runs: a table as Markdown, JSON and plot, and curves.

A run is a work dir of tools/train.py, or of tools/test.py for a model that was
only tested. With several seeds of each row, given in the same order, the table
also has the differences between rows, paired by seed, with a 95 % interval (t
distribution). For work dirs with a fingerprint.json, which tools/demo.py and
ablation.py write, it has the number of captioned views per step.
"""
import argparse
import json
from pathlib import Path

from mmdet_clim_cli.mistakes import run_command
from mmdet_clim_cli.options import Parser, add_json, add_runs, print_result


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__, renamed={'--out': '--out-dir'})
    add_runs(parser, 'a row of the table')
    parser.add_argument(
        '--out-dir',
        type=Path,
        required=True,
        help='folder of table.md, table.json, table.png and curves.png')
    add_json(parser)
    return parser.parse_args()


def read_run(work_dir: str) -> tuple[dict, str, dict[str, float]]:
    """The scalars of one run, whose metrics it has, and these."""
    from mmdet_clim.evaluation import (
        COLUMNS,
        last_metrics,
        read_scalars,
        seconds_per_iteration,
    )
    scalars = read_scalars(work_dir)
    for prefix in COLUMNS:
        metrics = last_metrics(scalars, prefix)
        if metrics:
            metrics.update(last_metrics(scalars, ''))
            metrics['seconds_per_iteration'] = seconds_per_iteration(scalars)
            return scalars, prefix, metrics
    raise ValueError(f'{work_dir}: expected metrics of OVCocoMetric, '
                     'OVLVISMetric or RegionClassificationMetric '
                     f'({sorted(COLUMNS)}) in its log, found none')


def views_line(rows: list[dict]) -> str:
    """What each row sees per step, in words; empty where none is known."""
    known = [(row['name'], row['captioned_views']) for row in rows
             if row['captioned_views'] is not None]
    if not known:
        return ''
    views = ', '.join(f'{name} {round(count, 1):g}' for name, count in known)
    return ('\nCaptioned views per step (a tile of a mosaic is one): '
            f'{views}.\n')


def views_of(work_dirs: list[str]) -> float | None:
    """Captioned views per step of the first seed, None if unknown."""
    from mmdet_clim.engine import captioned_views, read_fingerprint
    found = read_fingerprint(work_dirs[0])
    return None if found is None else captioned_views(found['config'])


def main() -> None:
    """Write the files and show the table."""
    args = parse_args()
    from mmdet_clim.evaluation import (
        COLUMNS,
        add_differences,
        differences_table,
        markdown_table,
        summarise_runs,
    )
    from mmdet_clim.visualization import plot_curves, plot_rows
    runs: dict[str, list[dict[str, float]]] = {}
    curves = {}
    prefixes = set()
    for name, work_dirs in args.run.items():
        seeds = [read_run(work_dir) for work_dir in work_dirs]
        runs[name] = [metrics for _, _, metrics in seeds]
        prefixes |= {prefix for _, prefix, _ in seeds}
        for number, (scalars, *_) in enumerate(seeds, 1):
            several = f' ({number})' if len(seeds) > 1 else ''
            curves[name + several] = scalars
    if len(prefixes) > 1:
        raise ValueError('--run: expected runs of one metric, got '
                         f'{sorted(prefixes)}')
    prefix = prefixes.pop()
    columns = COLUMNS[prefix]
    rows = summarise_runs(runs, columns)
    add_differences(rows, columns)
    for row in rows:
        row['captioned_views'] = views_of(args.run[row['name']])
    table = markdown_table(rows, columns) + views_line(rows)
    differences = differences_table(rows, columns)
    if differences:
        table += ('\nWithin a seed: mean and 95 % interval of the '
                  f'differences.\n\n{differences}')
    args.out_dir.mkdir(parents=True, exist_ok=True)
    (args.out_dir / 'table.md').write_text(table, encoding='utf-8')
    (args.out_dir / 'table.json').write_text(
        json.dumps(rows, indent=1, ensure_ascii=False) + '\n',
        encoding='utf-8')
    plot_rows(rows, args.out_dir / 'table.png', columns[:2])
    panels = [('loss', 'training loss')]
    panels += [(prefix + key, head) for key, head, *_ in columns[:2]]
    plot_curves(curves, args.out_dir / 'curves.png', panels)
    print_result(args, rows, table.rstrip('\n'))


if __name__ == '__main__':
    run_command(main)
