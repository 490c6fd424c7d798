# Licensed under the Apache License, Version 2.0.
"""Tables that compare runs, as Markdown and as plain data."""
import math
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from scipy import stats

#: (key of a run's metrics, head of the column, factor, digits)
Column = tuple[str, str, float, int]

OV_COCO_COLUMNS: tuple[Column, ...] = (
    ('base_ap50', 'base AP50', 100, 1),
    ('novel_ap50', 'novel AP50', 100, 1),
    ('all_ap50', 'all AP50', 100, 1),
    ('seconds_per_iteration', 's/iter', 1, 2),
)
OV_LVIS_COLUMNS: tuple[Column, ...] = (
    ('box_apr', 'box APr', 100, 1),
    ('mask_apr', 'mask APr', 100, 1),
    ('box_apc', 'box APc', 100, 1),
    ('mask_apc', 'mask APc', 100, 1),
    ('box_apf', 'box APf', 100, 1),
    ('mask_apf', 'mask APf', 100, 1),
    ('seconds_per_iteration', 's/iter', 1, 2),
)
#: Of a CLIP: regions of all classes, and what a refinement costs whole images.
REGION_COLUMNS: tuple[Column, ...] = (
    ('roi_all_top1', 'box top-1', 100, 1),
    ('roi_all_top5', 'box top-5', 100, 1),
    ('mask_all_top1', 'mask top-1', 100, 1),
    ('mask_all_top5', 'mask top-5', 100, 1),
    ('crop_all_top1', 'crop top-1', 100, 1),
    ('retrieval/image_to_text_r1', 'image to text R@1', 100, 1),
    ('retrieval/text_to_image_r1', 'text to image R@1', 100, 1),
    ('seconds_per_iteration', 's/iter', 1, 2),
)
#: Prefix of a metric's values -> the columns of its table. Keys are without
#: the prefix; those of another metric of the same run with its prefix.
COLUMNS: dict[str, tuple[Column, ...]] = {
    'ov_coco/': OV_COCO_COLUMNS,
    'ov_lvis/': OV_LVIS_COLUMNS,
    'region/': REGION_COLUMNS,
}


def summarise_runs(
        runs: Mapping[str, Sequence[Mapping[str, float]]],
        columns: Sequence[Column] = OV_COCO_COLUMNS) -> list[dict[str, Any]]:
    """Mean and spread over the seeds of each row.

    Args:
        runs (dict[str, list[dict]]): Name of a row -> one dict of metrics per
            seed, AP as a fraction, times in seconds.
        columns (list[tuple]): Key, head, factor, digits of each column.

    Returns:
        list[dict]: Per row ``name``, ``seeds`` (their number) and per key
        ``dict(mean, sd, values)`` in units of the column. ``sd`` is the
        sample standard deviation (n - 1), None with fewer than two values. A
        key that no seed has is left out; NaN values do not count, and are
        None among the values.

    Raises:
        ValueError: If there is no run, or a row without seeds.
    """
    if not runs:
        raise ValueError('runs: expected at least one row, got none')
    rows = []
    for name, seeds in runs.items():
        if not seeds:
            raise ValueError(f'runs[{name!r}]: expected the metrics of at '
                             'least one seed, got none')
        row: dict[str, Any] = dict(name=name, seeds=len(seeds))
        for key, _, factor, _ in columns:
            values = [factor * seed[key] for seed in seeds if key in seed]
            finite = [v for v in values if math.isfinite(v)]
            if values:
                row[key] = dict(
                    mean=mean(finite) if finite else None,
                    sd=stdev(finite) if len(finite) > 1 else None,
                    values=[v if math.isfinite(v) else None for v in values])
        rows.append(row)
    return rows


def markdown_table(rows: Sequence[Mapping[str, Any]],
                   columns: Sequence[Column] = OV_COCO_COLUMNS) -> str:
    """Write the rows of :func:`summarise_runs` as an aligned Markdown table.

    Args:
        rows (list[dict]): The rows.
        columns (list[tuple]): The columns they were made with.

    Returns:
        str: The table with a final newline; ``mean ± sd`` where there is a
        spread, a dash where a row has no value.
    """
    cells = [['', *(head for _, head, _, _ in columns)]]
    for row in rows:
        cells.append([
            _escaped(row['name']),
            *(_cell(row.get(key), digits) for key, _, _, digits in columns)
        ])
    return _aligned(cells)


def _aligned(cells: Sequence[Sequence[str]]) -> str:
    """A head and lines as Markdown; the first column is one of names."""
    widths = [max(3, *map(len, column)) for column in zip(*cells)]
    lines = [
        '| ' + ' | '.join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths))) + ' |'
        for line in cells
    ]
    rule = '|' + '|'.join('-' * (width + 2) if i == 0 else '-' *
                          (width + 1) + ':'
                          for i, width in enumerate(widths)) + '|'
    return '\n'.join([lines[0], rule, *lines[1:]]) + '\n'


def add_differences(rows: Sequence[dict[str, Any]],
                    columns: Sequence[Column] = OV_COCO_COLUMNS,
                    confidence: float = 0.95) -> None:
    """Add how far rows are apart within a seed, and how sure that is.

    The seeds of two rows are taken as pairs, in their order. Of up to four
    rows each is compared with all above it, of more with the first alone.

    Args:
        rows (list[dict]): As :func:`summarise_runs` gives them. A row gets
            ``differences``: name of the other row -> per key
            ``dict(mean, low, high, pairs)``, this row minus the other, in
            units of the column. ``low`` and ``high`` bound the mean with
            ``confidence`` (t distribution over the seeds). Rows with another
            number of seeds, or with one, are not compared; a pair with NaN
            does not count, and fewer than two pairs give nothing.
        columns (list[tuple]): The columns that they were made with.
        confidence (float): In (0, 1).
    """
    for number, row in enumerate(rows):
        others = rows[:number] if len(rows) <= 4 else rows[:min(1, number)]
        row['differences'] = {
            other['name']: {
                key: interval
                for key, *_ in columns
                if (interval := _interval(row, other, key, confidence))
            }
            for other in others if row['seeds'] == other['seeds'] > 1
        }


def _interval(row: Mapping, other: Mapping, key: str,
              confidence: float) -> dict[str, float] | None:
    if key not in row or key not in other:
        return None
    pairs = [
        a - b for a, b in zip(row[key]['values'], other[key]['values'])
        if a is not None and b is not None
    ]
    if len(pairs) < 2:
        return None
    middle, error = mean(pairs), stdev(pairs) / math.sqrt(len(pairs))
    reach = error * stats.t.ppf((1 + confidence) / 2, len(pairs) - 1)
    return dict(
        mean=middle,
        low=float(middle - reach),
        high=float(middle + reach),
        pairs=len(pairs))


def differences_table(rows: Sequence[Mapping[str, Any]],
                      columns: Sequence[Column] = OV_COCO_COLUMNS) -> str:
    """Write what :func:`add_differences` found as a Markdown table.

    Args:
        rows (list[dict]): The rows.
        columns (list[tuple]): The columns that they were made with. Times are
            left out.

    Returns:
        str: The table with a final newline, empty where nothing was compared.
    """
    columns = [c for c in columns if c[0] != 'seconds_per_iteration']
    cells = [['difference', *(head for _, head, _, _ in columns)]]
    for row in rows:
        for other, values in row.get('differences', {}).items():
            line = [_escaped(f'{row["name"]} minus {other}')]
            for key, _, _, digits in columns:
                value = values.get(key)
                line.append('–' if value is None else
                            '{mean:+.{d}f} [{low:+.{d}f}, {high:+.{d}f}]'.
                            format(d=digits, **value))
            cells.append(line)
    return _aligned(cells) if len(cells) > 1 else ''


def _escaped(name: object) -> str:
    return str(name).replace('|', '\\|')


def _cell(value: Mapping | None, digits: int) -> str:
    if value is None or value['mean'] is None:
        return '–'
    text = f'{value["mean"]:.{digits}f}'
    if value['sd'] is not None:
        text += f' ± {value["sd"]:.{digits}f}'
    return text
