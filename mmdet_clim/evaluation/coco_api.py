# Licensed under the Apache License, Version 2.0.
"""COCO's evaluation of boxes in memory, by one of several packages."""
import io
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from .backends import threads_are_here

#: Detections of an image and a class that COCO evaluates.
MAX_DETECTIONS = 100
#: One range of areas that holds every object.
AREA_RANGES = [[0, 1e10]]


def reference_precision(ground_truth: dict, detections: list[dict],
                        image_ids: Sequence[int], category_ids: Sequence[int],
                        ious: Sequence[float]) -> np.ndarray:
    """Precision by pycocotools, COCO's own implementation.

    Args:
        ground_truth (dict): ``images``, ``categories`` and ``annotations``.
        detections (list[dict]): COCO's result format; they are written to.
        image_ids (list[int]): Images that are evaluated.
        category_ids (list[int]): C categories that are evaluated.
        ious (list[float]): T thresholds.

    Returns:
        np.ndarray: Shape (T, 101 recalls, C in the order of the ids), -1
        where a category has no ground truth.
    """
    return _precision(COCO, COCOeval, ground_truth, detections, image_ids,
                      category_ids, ious)


def faster_precision(ground_truth: dict, detections: list[dict],
                     image_ids: Sequence[int], category_ids: Sequence[int],
                     ious: Sequence[float]) -> np.ndarray:
    """Precision by faster-coco-eval; as :func:`reference_precision`."""
    from faster_coco_eval import COCO, COCOeval_faster
    return _precision(COCO, COCOeval_faster, ground_truth, detections,
                      image_ids, category_ids, ious)


def hotcoco_precision(ground_truth: dict, detections: list[dict],
                      image_ids: Sequence[int], category_ids: Sequence[int],
                      ious: Sequence[float]) -> np.ndarray:
    """Precision by hotcoco; as :func:`reference_precision`.

    In a process without its threads it is the reference that computes.
    """
    if not threads_are_here():
        return reference_precision(ground_truth, detections, image_ids,
                                   category_ids, ious)
    from hotcoco import COCO, COCOeval
    return _precision(COCO, COCOeval, ground_truth, detections, image_ids,
                      category_ids, ious)


BACKENDS: dict[str, Callable[..., np.ndarray]] = dict(
    hotcoco=hotcoco_precision,
    faster_coco_eval=faster_precision,
    pycocotools=reference_precision)


def _precision(coco_type: Any, eval_type: Any, ground_truth: dict,
               detections: list[dict], image_ids: Sequence[int],
               category_ids: Sequence[int],
               ious: Sequence[float]) -> np.ndarray:
    """By one of the packages that have the interface of pycocotools."""
    # They print what they do.
    with redirect_stdout(io.StringIO()):
        truth, found = coco_type(), coco_type()
        # An id of 0 is taken for "no match", and the packages write into it.
        truth.dataset = dict(
            ground_truth,
            annotations=[
                dict(a, id=number) for number, a in enumerate(
                    ground_truth.get('annotations', ()), start=1)
            ])
        truth.createIndex()
        if detections:
            found = truth.loadRes(detections)
        else:
            # loadRes refuses an empty list.
            found.dataset = dict(ground_truth, annotations=[])
            found.createIndex()
        evaluation = eval_type(truth, found, 'bbox')
        params = evaluation.params
        # hotcoco takes them as they come.
        params.imgIds, params.catIds = sorted(image_ids), sorted(category_ids)
        params.iouThrs = np.asarray(ious)
        params.areaRng, params.areaRngLbl = AREA_RANGES, ['all']
        params.maxDets = [MAX_DETECTIONS]
        evaluation.evaluate()
        evaluation.accumulate()
    return np.asarray(evaluation.eval['precision'])[:, :, :, 0, 0]
