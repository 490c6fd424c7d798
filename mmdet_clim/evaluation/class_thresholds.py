# Licensed under the Apache License, Version 2.0.
"""The score from which on each class is best believed."""
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData

from mmdet_clim.datasets.class_names import clean_names
from mmdet_clim.datasets.json_checks import as_number
from mmdet_clim.datasets.json_files import read_json

from .agreement import SAME_IOU

#: What a fine-tuning writes beside the weights that it leaves.
THRESHOLDS = 'thresholds.json'
Chosen = dict[str, int | float | None]


def class_thresholds(detections: Sequence[InstanceData],
                     truth: Sequence[InstanceData],
                     names: Sequence[str]) -> dict[str, Chosen]:
    r"""Choose a threshold of scores per class, by the largest F1.

    A detection is right if its IoU with a box of its class, which no better
    one has taken, is at least 0.5. :math:`F_1 = 2\,TP / (N + G)`, with
    :math:`N` detections at or above the threshold and :math:`G` boxes.

    Args:
        detections (list[InstanceData]): Of each image ``bboxes`` (n, 4),
            absolute xyxy pixels, ``labels`` (n,) and ``scores`` (n,).
        truth (list[InstanceData]): Of each image ``bboxes`` and ``labels``.
        names (list[str]): The classes, in the order of the labels.

    Returns:
        dict[str, dict]: Of each name ``threshold``, ``f1``, ``precision``
        and ``recall`` at it, and ``boxes``; the first four are None where the
        class has no box, or no detection of it is right.
    """
    scores: list[list[float]] = [[] for _ in names]
    right: list[list[bool]] = [[] for _ in names]
    boxes: np.ndarray = np.zeros(len(names), int)
    for found, real in zip(detections, truth):
        np.add.at(boxes, real.labels.cpu().numpy(), 1)
        for label in found.labels.unique().tolist():
            own = found[found.labels == label]
            own = own[own.scores.argsort(descending=True, stable=True)]
            scores[label] += own.scores.tolist()
            right[label] += _right(own, real[real.labels == label])
    return {
        name:
        _best(np.array(scores[i]), np.array(right[i], bool), int(boxes[i]))
        for i, name in enumerate(names)
    }


def thresholds_beside(checkpoint: str | Path) -> dict[str, float]:
    """The thresholds that a fine-tuning chose for its classes.

    Args:
        checkpoint (str or Path): File of the weights, beside which
            ``thresholds.json`` may lie.

    Returns:
        dict[str, float]: By class name; of classes that have none, and where
        there is no such file, nothing.

    Raises:
        ValueError: If the file is not of the form that
            :func:`class_thresholds` gives, or a threshold is no score.
    """
    file = Path(checkpoint).with_name(THRESHOLDS)
    if not file.is_file():
        return {}
    chosen = read_json(file)
    if not isinstance(chosen, dict) or not all(
            isinstance(of, dict) and 'threshold' in of
            for of in chosen.values()):
        raise ValueError(f'{file}: expected an object of class names, each '
                         'with an object that has a threshold')
    clean_names(chosen, str(file))
    thresholds = {
        name: of['threshold']
        for name, of in chosen.items() if of['threshold'] is not None
    }
    for name, value in thresholds.items():
        number = None if isinstance(value, str) else as_number(value)
        if number is None or not 0 <= number <= 1:
            raise ValueError(f'{file}: {name!r}: threshold is {value!r}, '
                             'expected null or a number from 0 to 1')
    return thresholds


def _right(found: InstanceData, real: InstanceData) -> list[bool]:
    """Which detections of one class, best first, find a box of their own."""
    ious = bbox_overlaps(found.bboxes.float(), real.bboxes.float())
    flags = []
    for row in ious:
        best = int(row.argmax()) if len(row) else None
        hit = best is not None and bool(row[best] >= SAME_IOU)
        if hit:
            ious[:, best] = -1
        flags.append(hit)
    return flags


def _best(scores: np.ndarray, right: np.ndarray, boxes: int) -> Chosen:
    nothing: float | None = None
    chosen: Chosen = dict(
        threshold=nothing,
        f1=nothing,
        precision=nothing,
        recall=nothing,
        boxes=boxes)
    if not boxes or not right.any():
        return chosen
    order = np.argsort(-scores, kind='stable')
    scores, hits = scores[order], right[order].cumsum()
    counts = np.arange(1, len(scores) + 1)
    # Detections of one score stand or fall together.
    last: np.ndarray = np.append(scores[1:] != scores[:-1], True)
    f1 = np.where(last, 2 * hits / (counts + boxes), -1)
    best = int(f1.argmax())
    chosen.update(
        threshold=float(scores[best]),
        f1=float(f1[best]),
        precision=float(hits[best] / counts[best]),
        recall=float(hits[best] / boxes))
    return chosen
