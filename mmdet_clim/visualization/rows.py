# Licensed under the Apache License, Version 2.0.
"""The table of several runs as a picture."""
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mmdet_clim.evaluation.tables import OV_COCO_COLUMNS, Column

from .canvas import COLOURS


def plot_rows(rows: Sequence[Mapping[str, Any]],
              out_file: str | Path,
              columns: Sequence[Column] = OV_COCO_COLUMNS[:2]) -> None:
    """Draw the rows of a table as bars, one panel per column.

    A bar is the mean over seeds, a dot one seed, a line the standard
    deviation. A row without a value keeps its place empty.

    Args:
        rows (list[dict]): As :func:`mmdet_clim.evaluation.summarise_runs`
            gives them.
        out_file (str or Path): The PNG to write; its folder is made.
        columns (list[tuple]): Which columns, base and novel AP50 by default.

    Raises:
        ValueError: If there is no row or no column.
    """
    if not rows or not columns:
        raise ValueError('rows, columns: expected at least one of each, got '
                         f'{len(rows)} and {len(columns)}')
    figure = Figure(
        figsize=(4.5 * len(columns) + 2, 0.5 * len(rows) + 1),
        layout='constrained')
    canvas = FigureCanvasAgg(figure)
    places = np.arange(len(rows))
    panels: Any = figure.subplots(
        1, len(columns), squeeze=False, sharey=True)[0]
    for axes, (key, head, _, digits) in zip(panels, columns):
        axes.set_title(head)
        axes.grid(axis='x', alpha=.3)
        for place, row in zip(places, rows):
            value = row.get(key)
            if value is None or value['mean'] is None:
                continue
            colour = np.array(COLOURS[place % len(COLOURS)]) / 255
            axes.barh(
                place,
                value['mean'],
                xerr=value['sd'],
                height=.6,
                color=(*colour, .6))
            seeds = [v for v in value['values'] if v is not None]
            axes.plot(seeds, [place] * len(seeds), 'k.', ms=4)
            axes.annotate(
                f'{value["mean"]:.{digits}f}', (0, place),
                xytext=(4, 0),
                textcoords='offset points',
                va='center')
    panels[0].set_yticks(places, [str(row['name']) for row in rows])
    panels[0].invert_yaxis()
    Path(out_file).parent.mkdir(parents=True, exist_ok=True)
    canvas.print_png(str(out_file))
