# Licensed under the Apache License, Version 2.0.
"""Tables that compare runs, as Markdown and as plain data."""
import math
from statistics import mean, stdev
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

#: (key of a run's metrics, head of the column, factor, digits)
Column = Tuple[str, str, float, int]

OV_COCO_COLUMNS: Tuple[Column, ...] = (
    ('base_ap50', 'base AP50', 100, 1),
    ('novel_ap50', 'novel AP50', 100, 1),
    ('all_ap50', 'all AP50', 100, 1),
    ('seconds_per_iteration', 's/iter', 1, 2),
)
OV_LVIS_COLUMNS: Tuple[Column, ...] = (
    ('box_apr', 'box APr', 100, 1),
    ('mask_apr', 'mask APr', 100, 1),
    ('box_apc', 'box APc', 100, 1),
    ('mask_apc', 'mask APc', 100, 1),
    ('box_apf', 'box APf', 100, 1),
    ('mask_apf', 'mask APf', 100, 1),
    ('seconds_per_iteration', 's/iter', 1, 2),
)
#: Of a CLIP: regions of all classes, and what a refinement costs whole images.
REGION_COLUMNS: Tuple[Column, ...] = (
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
COLUMNS: Dict[str, Tuple[Column, ...]] = {
    'ov_coco/': OV_COCO_COLUMNS,
    'ov_lvis/': OV_LVIS_COLUMNS,
    'region/': REGION_COLUMNS,
}


def summarise_runs(
        runs: Mapping[str, Sequence[Mapping[str, float]]],
        columns: Sequence[Column] = OV_COCO_COLUMNS
) -> List[Dict[str, object]]:
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
        row: Dict[str, object] = dict(name=name, seeds=len(seeds))
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


def markdown_table(rows: Sequence[Mapping[str, object]],
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
            str(row['name']).replace('|', '\\|'),
            *(_cell(row.get(key), digits) for key, _, _, digits in columns)
        ])
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


def _cell(value: Optional[Mapping], digits: int) -> str:
    if value is None or value['mean'] is None:
        return '–'
    text = f'{value["mean"]:.{digits}f}'
    if value['sd'] is not None:
        text += f' ± {value["sd"]:.{digits}f}'
    return text
