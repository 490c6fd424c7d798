# Licensed under the Apache License, Version 2.0.
"""What two detectors say of the same images, and what one says wrongly."""
from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData

#: Least IoU of two boxes of one object.
SAME_IOU = 0.5


class Match(NamedTuple):
    """Two detections of one object, one of either detector.

    Args:
        before (int): Index of the first detector's.
        after (int): Index of the second one's.
        iou (float): Of their boxes.
    """

    before: int
    after: int
    iou: float


def match_detections(before: InstanceData,
                     after: InstanceData,
                     least_iou: float = SAME_IOU) -> list[Match]:
    """Pair the detections of two detectors in one image.

    Pairs are of one class; the largest IoU is paired first, and no detection
    twice.

    Args:
        before, after (InstanceData): ``bboxes`` (n, 4), absolute xyxy pixels,
            and ``labels`` (n,).
        least_iou (float): Of a pair.
    """
    ious = bbox_overlaps(before.bboxes.float(), after.bboxes.float())
    same = before.labels[:, None] == after.labels
    ious = ious.masked_fill(~same, 0)
    first, second = (ious >= max(least_iou, 1e-9)).nonzero(as_tuple=True)
    order = ious[first, second].argsort(descending=True, stable=True)
    pairs = []
    taken: tuple[set[int], set[int]] = (set(), set())
    for i, j in zip(first[order].tolist(), second[order].tolist()):
        if i not in taken[0] and j not in taken[1]:
            taken[0].add(i)
            taken[1].add(j)
            pairs.append(Match(i, j, ious[i, j].item()))
    return pairs


def agreement(before: Sequence[InstanceData], after: Sequence[InstanceData],
              score: float) -> dict[str, int | float | None]:
    """How far two detectors find the same in the same images.

    Args:
        before, after (list[InstanceData]): Of each image ``bboxes`` (n, 4),
            absolute xyxy pixels, ``labels`` (n,) and ``scores`` (n,).
        score (float): Detections that score less do not count.

    Returns:
        dict: ``before`` and ``after``, how many detections each has;
        ``found_again``, the share of those before that are there after;
        ``f1``, twice the pairs over all detections of both; ``iou``, of the
        boxes of the pairs, and ``score_change``, of their scores, in the
        mean. None is a share of nothing.
    """
    counts = [0, 0]
    ious: list[float] = []
    changes: list[float] = []
    for one, other in zip(before, after):
        one, other = (of[of.scores >= score] for of in (one, other))
        counts[0] += len(one)
        counts[1] += len(other)
        for pair in match_detections(one, other):
            ious.append(pair.iou)
            changes.append(other.scores[pair.after].item() -
                           one.scores[pair.before].item())
    pairs = len(ious)
    return dict(
        before=counts[0],
        after=counts[1],
        found_again=_share(pairs, counts[0]),
        f1=_share(2 * pairs, sum(counts)),
        iou=_share(sum(ious), pairs),
        score_change=_share(sum(changes), pairs))


def unnamed_detections(
    detections: Sequence[InstanceData],
    named: Sequence[Collection[int]],
    thresholds: Sequence[float],
) -> tuple[Counter, Counter]:
    """Count detections of classes in images whose texts do not name them.

    Args:
        detections (list[InstanceData]): Of each image ``labels`` (n,) and
            ``scores`` (n,).
        named (list[Collection[int]]): Of each image the classes that its
            texts name.
        thresholds (list[float]): Of each of the C counted classes, labels 0
            to C - 1, the least score.

    Returns:
        tuple[Counter, Counter]: By class, the detections, and the images that
        do not name it.
    """
    found: Counter = Counter()
    images: Counter = Counter()
    for of_image, names in zip(detections, named):
        images.update(c for c in range(len(thresholds)) if c not in names)
        found.update(label for label, score in zip(of_image.labels.tolist(),
                                                   of_image.scores.tolist())
                     if label < len(thresholds) and label not in names
                     and score >= thresholds[label])
    return found, images


def disagreement(before: InstanceData, after: InstanceData,
                 score: float) -> int:
    """How many detections of an image only one of two detectors has.

    Args:
        before, after (InstanceData): As :func:`agreement` takes them.
        score (float): Detections that score less do not count.
    """
    one, other = (of[of.scores >= score] for of in (before, after))
    return len(one) + len(other) - 2 * len(match_detections(one, other))


def of_labels(instances: InstanceData,
              labels: Collection[int] | None) -> InstanceData:
    """The instances of some classes.

    Args:
        instances (InstanceData): With ``labels`` (n,).
        labels (Collection[int], optional): The classes; None for all.
    """
    if labels is None:
        return instances
    wanted = torch.tensor(sorted(labels), dtype=instances.labels.dtype)
    return instances[torch.isin(instances.labels, wanted)]


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
