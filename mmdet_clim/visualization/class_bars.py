# Licensed under the Apache License, Version 2.0.
"""AP of each class as bars, base against novel."""
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mmdet_clim.checks import check_range

from .detections import BASE_COLOUR, NOVEL_COLOUR

Row = Mapping[str, Any]


def plot_class_ap(rows: Sequence[Row],
                  out_file: str | Path,
                  kind: str = 'AP50',
                  num: int | None = None,
                  gain_title: str = 'gain') -> None:
    """Draw the AP of each class in each run, and the gain beside it.

    Novel classes are orange and above, base classes blue and below; within
    each the largest gain is first, or the largest AP where there is one run.
    A run is the paler the earlier it stands, a dot is a seed.

    Args:
        rows (list[dict]): As
            :func:`mmdet_clim.evaluation.compare_class_ap` gives them.
        out_file (str or Path): The PNG to write; its folder is made.
        kind (str): What the AP is called.
        num (int, optional): Draw no more than so many classes, those of the
            largest changes. Defaults to all.
        gain_title (str): Title of the panel of gains.

    Raises:
        ValueError: If there is no row, or ``num`` is below 1.
    """
    if not rows:
        raise ValueError('rows: expected at least one class, got none')
    check_range(1, num=num)
    runs = list(rows[0]['ap'])
    left_out = len(rows) - len(rows[:num])
    rows = _in_order(rows, num)
    with_gain = any(row['gain'] is not None for row in rows)
    # Novel and base classes are a row apart.
    places = np.arange(len(rows)) + np.array([not r['novel'] for r in rows])
    figure = Figure(
        figsize=(11 if with_gain else 7,
                 1.6 + len(rows) * (.16 + .06 * len(runs))),
        layout='constrained')
    canvas = FigureCanvasAgg(figure)
    panels: Any = figure.subplots(
        1, 1 + with_gain, squeeze=False, sharey=True)[0]
    _draw_runs(panels[0], rows, places, runs)
    panels[0].set_title(f'{kind} of each class')
    if with_gain:
        _draw_gains(panels[1], rows, places)
        panels[1].set_title(gain_title)
    panels[0].set_yticks(places, [str(row['name']) for row in rows])
    panels[0].set_ylim(places[-1] + 1, places[0] - 1)
    handles = [
        Patch(
            color=(*_share(colour), _strength(runs, run)),
            label=f'{group}, {run}')
        for group, colour in (('novel', NOVEL_COLOUR), ('base', BASE_COLOUR))
        for run in runs
    ]
    figure.legend(
        handles=handles, loc='outside lower center', ncols=max(2, len(runs)))
    if left_out:
        figure.suptitle(f'the {len(rows)} classes that change most; '
                        f'{left_out} are not drawn')
    Path(out_file).parent.mkdir(parents=True, exist_ok=True)
    canvas.print_png(str(out_file))


def _in_order(rows: Sequence[Row], num: int | None) -> list[Row]:
    """The rows of the largest changes, novel ones first, best first."""

    def value(row: Row) -> float:
        last = list(row['ap'].values())[-1]
        found = row['gain'] if row['gain'] is not None else last
        return -np.inf if found is None else found

    def change(row: Row) -> float:
        return abs(value(row)) if np.isfinite(value(row)) else -1.

    kept = sorted(rows, key=change, reverse=True)[:num]
    return sorted(kept, key=lambda row: (not row['novel'], -value(row)))


def _draw_runs(axes: Axes, rows: Sequence[Row], places: np.ndarray,
               runs: Sequence[str]) -> None:
    """A bar per run and class, and a dot per seed where there are several."""
    height = .84 / len(runs)
    for number, run in enumerate(runs):
        at = places - .42 + (number + .5) * height
        for place, row in zip(at, rows):
            if row['ap'][run] is None:
                continue
            axes.barh(
                place,
                row['ap'][run],
                height=height,
                color=(*_colour(row), _strength(runs, run)))
            if len(row['values'][run]) > 1:
                axes.plot(
                    row['values'][run], [place] * len(row['values'][run]),
                    'k.',
                    ms=2.5)
    axes.set_xlim(0, 100)
    axes.grid(axis='x', alpha=.3)
    axes.tick_params(axis='y', labelsize=8)


def _draw_gains(axes: Axes, rows: Sequence[Row], places: np.ndarray) -> None:
    """A bar with its value per class that has a gain."""
    for place, row in zip(places, rows):
        if row['gain'] is None:
            continue
        axes.barh(place, row['gain'], height=.8, color=_colour(row))
        axes.annotate(
            f'{row["gain"]:+.1f}', (row['gain'], place),
            xytext=(3 if row['gain'] >= 0 else -3, 0),
            textcoords='offset points',
            ha='left' if row['gain'] >= 0 else 'right',
            va='center',
            fontsize=7)
    axes.axvline(0, color='k', lw=.8)
    axes.margins(x=.12)
    axes.grid(axis='x', alpha=.3)


def _colour(row: Row) -> np.ndarray:
    return _share(NOVEL_COLOUR if row['novel'] else BASE_COLOUR)


def _share(colour: Sequence[int]) -> np.ndarray:
    return np.array(colour) / 255


def _strength(runs: Sequence[str], run: str) -> float:
    """Opacity of a run: the last is full."""
    return .3 + .7 * (runs.index(run) + 1) / len(runs)
