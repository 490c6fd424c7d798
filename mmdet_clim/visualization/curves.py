# Licensed under the Apache License, Version 2.0.
"""Training curves of several runs in one picture."""
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mmdet_clim.evaluation.run_log import Series

from .canvas import COLOURS

DEFAULT_PANELS = (('loss', 'training loss'),
                  ('ov_coco/base_ap50', 'base AP50'), ('ov_coco/novel_ap50',
                                                       'novel AP50'))


def plot_curves(runs: Mapping[str, Mapping[str, Series]],
                out_file: str | Path,
                panels: Sequence[tuple[str, str]] = DEFAULT_PANELS,
                smoothing: float = 0.8) -> None:
    """Draw logged scalars of several runs, one panel per scalar.

    Args:
        runs (dict[str, dict]): Name of a run -> its scalars, as
            :func:`mmdet_clim.evaluation.read_scalars` returns them.
        out_file (str or Path): The PNG to write; its folder is made.
        panels (list[tuple[str, str]]): Key and title of each panel. A panel
            of whose key no run logged a value says so.
        smoothing (float): Weight in [0, 1) of the past in an exponential
            mean, without the bias of its start, drawn over a pale line of
            the values; only in panels of more than 20 values, so not in
            those of validations. Defaults to 0.8.

    Raises:
        ValueError: If there is no run or no panel, or ``smoothing`` is
            outside [0, 1).
    """
    if not runs or not panels:
        raise ValueError('runs, panels: expected at least one of each, got '
                         f'{len(runs)} and {len(panels)}')
    if not 0 <= smoothing < 1:
        raise ValueError('smoothing: expected a number in [0, 1), got '
                         f'{smoothing!r}')
    figure = Figure(figsize=(5.5 * len(panels), 4.4), layout='constrained')
    canvas = FigureCanvasAgg(figure)
    lines: dict[str, Any] = {}
    for axes, (key, title) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels):
        axes.set_title(title)
        axes.set_xlabel('iteration')
        axes.grid(alpha=.3)
        drawn = False
        for index, (name, scalars) in enumerate(runs.items()):
            if not scalars.get(key):
                continue
            drawn = True
            steps, values = np.array(scalars[key]).T
            colour = np.array(COLOURS[index % len(COLOURS)]) / 255
            if len(values) > 20:
                axes.plot(steps, values, color=colour, alpha=.2, lw=.8)
                line, = axes.plot(
                    steps, smooth(values, smoothing), color=colour, lw=1.8)
            else:
                line, = axes.plot(
                    steps, values, color=colour, lw=1.8, marker='o', ms=4)
            lines.setdefault(name, line)
        if not drawn:
            axes.text(
                .5,
                .5,
                f'no run logged {key}',
                ha='center',
                transform=axes.transAxes)
    if lines:
        figure.legend(
            lines.values(),
            lines.keys(),
            loc='outside lower center',
            ncols=min(4, len(lines)))
    Path(out_file).parent.mkdir(parents=True, exist_ok=True)
    canvas.print_png(str(out_file))


def smooth(values: Sequence[float], weight: float) -> np.ndarray:
    """Exponential mean: ``sum_k w^k v[i-k] / sum_k w^k`` at every i.

    Args:
        values (list[float]): N values.
        weight (float): The weight w of the past in [0, 1).

    Returns:
        np.ndarray: Shape (N,).
    """
    result, total, norm = [], 0., 0.
    for value in values:
        total = weight * total + value
        norm = weight * norm + 1
        result.append(total / norm)
    return np.array(result)
