# Licensed under the Apache License, Version 2.0.
"""LVIS evaluation on data in memory, by one of several packages.

All get the same detections and give the same average precision; which of them
LVIS counts (:func:`~mmdet_clim.evaluation.lvis_detections.evaluated`) is
decided before.
"""
from collections.abc import Callable
from types import FunctionType, ModuleType

import numpy as np

from .backends import threads_are_here
from .lvis_detections import LVISDetections

#: One range of areas that holds every object.
AREA_RANGES = [[0, 1e10]]


def lvis_precision(ground_truth: dict, detections: LVISDetections,
                   iou_type: str) -> np.ndarray:
    """Precision by the ``lvis`` package, LVIS's own implementation.

    Args:
        ground_truth (dict): ``images``, ``categories``, ``annotations`` as in
            LVIS v1.
        detections (LVISDetections): All of them are evaluated.
        iou_type (str): 'bbox' or 'segm'.

    Returns:
        np.ndarray: Shape (10 IoUs, 101 recalls, classes in the order of their
        ids), -1 where a class has no ground truth.
    """
    from lvis import LVIS, LVISEval, LVISResults  # an optional package

    class _Dataset(LVIS):
        """LVIS data that lies in memory."""

        def _load_json(self, content: dict) -> dict:
            return content

    class _Results(_Dataset, LVISResults):
        """The detections, which LVISResults would refuse where empty."""

        def __init__(self, content: dict) -> None:
            _Dataset.__init__(self, content)

    class _Evaluation(LVISEval):
        """LVISEval with the ``np.float`` that NumPy 1.24 removed."""

        accumulate = _with_numpy_float(LVISEval.accumulate)

    evaluation = _Evaluation(
        _Dataset(_copy(ground_truth)),
        _Results(
            dict(ground_truth, annotations=detections.as_dicts(iou_type))),
        iou_type)
    evaluation.params.area_rng = AREA_RANGES
    evaluation.params.area_rng_lbl = ['all']
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval['precision'][..., 0]


def faster_precision(ground_truth: dict, detections: LVISDetections,
                     iou_type: str) -> np.ndarray:
    """Precision by faster-coco-eval; as :func:`lvis_precision`."""
    from faster_coco_eval import COCO, COCOeval_faster
    ground_truth_api, detections_api = COCO(), COCO()
    ground_truth_api.dataset = _copy(ground_truth)
    detections_api.dataset = dict(
        ground_truth, annotations=detections.as_dicts(iou_type))
    ground_truth_api.createIndex()
    detections_api.createIndex()
    evaluation = COCOeval_faster(
        ground_truth_api, detections_api, iou_type, lvis_style=True)
    params = evaluation.params
    params.areaRng, params.areaRngLbl = AREA_RANGES, ['all']
    # They are limited already.
    params.maxDets = [max(len(detections.scores), 1)]
    evaluation.evaluate()
    evaluation.accumulate()
    return np.asarray(evaluation.eval['precision'])[..., 0, 0]


def hotcoco_precision(ground_truth: dict, detections: LVISDetections,
                      iou_type: str) -> np.ndarray:
    """Precision by hotcoco; as :func:`lvis_precision`.

    In a process without its threads it is faster-coco-eval that computes.
    """
    if not threads_are_here():
        return faster_precision(ground_truth, detections, iou_type)
    from hotcoco import COCO, LVISeval
    truth = COCO(ground_truth)
    rows = np.column_stack(
        (detections.image_ids, detections.boxes, detections.scores,
         detections.category_ids)).astype(float)
    found = truth.load_res(
        rows,
        segmentation=detections.mask_list() if iou_type == 'segm' else None)
    # Without its own limits, per image and here per class in an image.
    evaluation = LVISeval(truth, found.cap_detections_per_image(None),
                          iou_type)
    evaluation.params.area_rng = AREA_RANGES
    evaluation.params.area_rng_lbl = ['all']
    evaluation.params.max_dets = [max(len(detections.scores), 1)]
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval['precision'][:, :, :, 0, 0]


BACKENDS: dict[str, Callable[[dict, LVISDetections, str], np.ndarray]] = dict(
    hotcoco=hotcoco_precision,
    faster_coco_eval=faster_precision,
    lvis=lvis_precision)


def _copy(ground_truth: dict) -> dict:
    """Annotations of its own: both packages write into them."""
    return dict(
        ground_truth,
        annotations=[dict(a) for a in ground_truth['annotations']])


def _with_numpy_float(function: FunctionType) -> FunctionType:
    """The same function, for which alone ``np.float`` is ``float``.

    It gets a copy of its module's names; neither NumPy nor that module is
    changed.
    """
    numpy_with_float = ModuleType('numpy')
    vars(numpy_with_float).update(vars(np), float=float)
    return FunctionType(function.__code__,
                        dict(function.__globals__,
                             np=numpy_with_float), function.__name__,
                        function.__defaults__, function.__closure__)
