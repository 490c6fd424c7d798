# Licensed under the Apache License, Version 2.0.
"""AP of each class in several runs, and what one run gains over another."""
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from mmdet_clim.datasets import Vocabulary
from mmdet_clim.datasets.json_files import read_json

from .run_log import last_metrics, read_scalars

#: What the AP of a class is -> what its keys in the metrics begin with.
CLASS_AP: dict[str, str] = {
    'AP50': 'ov_coco/ap50_',
    'mask AP': 'ov_lvis/mask_ap_',
    'box AP': 'ov_lvis/box_ap_',
}


def read_class_ap(work_dir: str | Path,
                  kind: str = 'AP50') -> dict[str, float]:
    """Read the AP of each class that a run's metric gave.

    ``classwise=True`` of :class:`OVCocoMetric` and :class:`OVLVISMetric`
    gives them. Those of the last test in the work dir are read, without a
    test those of the last validation.

    Args:
        work_dir (str or Path): Work dir of ``tools/train.py`` or
            ``tools/test.py``.
        kind (str): Out of :data:`CLASS_AP`.

    Returns:
        dict[str, float]: Name of a class -> its AP as a fraction.

    Raises:
        ValueError: If the run has no such metrics.
    """
    prefix = CLASS_AP[kind]
    for file in sorted(Path(work_dir).glob('*/*.json'), reverse=True):
        metrics = read_json(file)
        if not isinstance(metrics, dict):
            continue
        found = {
            key[len(prefix):]: value
            for key, value in metrics.items() if key.startswith(prefix)
        }
        if found:
            return found
    found = {}
    if any(Path(work_dir).glob('*/vis_data/scalars.json')):
        found = last_metrics(read_scalars(work_dir), prefix)
    if not found:
        raise ValueError(
            f'{work_dir}: expected {prefix}CLASS among the metrics of a test '
            'or a validation, found none; tools/test.py writes them with '
            '--cfg-options test_evaluator.classwise=True')
    return found


def compare_class_ap(
        runs: Mapping[str, Sequence[Mapping[str, float]]],
        vocabulary: Vocabulary,
        gain: tuple[str, str] | None = None) -> list[dict[str, Any]]:
    """One row per class: its AP in each run, and the gain.

    Args:
        runs (dict[str, list[dict]]): Name of a run -> of each of its seeds
            the AP of the classes, as fractions.
        vocabulary (Vocabulary): The classes, and which of them are base.
        gain (tuple[str, str], optional): The run that gains, and over which.
            Defaults to the last over the first; with one run there is none.

    Returns:
        list[dict]: Per class that a run has an AP of, in the vocabulary's
        order, ``name``, ``novel`` (bool), ``ap`` (name of a run -> the mean
        over its seeds in percent, None where it has none), ``values`` (name
        of a run -> those of the seeds) and ``gain`` (difference of the means,
        None where one is missing).

    Raises:
        ValueError: If there is no run, ``gain`` names none of them, or a
            class is not in the vocabulary.
    """
    names = list(runs)
    if not names:
        raise ValueError('runs: expected at least one, got none')
    if gain is None and len(names) > 1:
        gain = (names[-1], names[0])
    if gain is not None and not set(gain) <= set(names):
        raise ValueError(f'gain: expected two of {names}, got {gain}')
    found = {name for seeds in runs.values() for of in seeds for name in of}
    unknown = sorted(found - set(vocabulary.names))
    if unknown:
        raise ValueError(f'runs: {unknown[:5]} are not among the '
                         f'{len(vocabulary)} classes of the vocabulary; for '
                         'classes of your own, give the base classes (--base)')
    rows = []
    for name, is_base in zip(vocabulary.names, vocabulary.is_base):
        if name not in found:
            continue
        values = {
            run: [
                100 * of[name] for of in seeds
                if math.isfinite(of.get(name, math.nan))
            ]
            for run, seeds in runs.items()
        }
        ap = {run: mean(of) if of else None for run, of in values.items()}
        difference = None
        if gain is not None:
            of, over = ap[gain[0]], ap[gain[1]]
            if of is not None and over is not None:
                difference = of - over
        rows.append(
            dict(
                name=name,
                novel=not is_base,
                ap=ap,
                values=values,
                gain=difference))
    return rows
