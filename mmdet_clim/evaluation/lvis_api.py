# Licensed under the Apache License, Version 2.0.
"""LVIS evaluation on data in memory, by ``lvis`` or by faster-coco-eval.

Both get the same lists of annotations and give the same average precision;
what LVIS says of detections (at most 300 per image, none without area) is
done to these lists before.
"""
from types import FunctionType, ModuleType
from typing import Callable, Dict, List, Sequence

import numpy as np

#: Detections of an image that LVIS evaluates, those with the best scores.
MAX_DETECTIONS = 300
#: One range of areas that holds every object.
AREA_RANGES = [[0, 1e10]]


def limit_detections(detections: Sequence[dict]) -> List[dict]:
    """Keep the best of each image and number them from 1.

    Args:
        detections (list[dict]): In LVIS's result format with ``area``.

    Returns:
        list[dict]: At most 300 per image by score (the earlier where scores
        are equal), of those the ones with an area.
    """
    by_image: Dict[int, List[dict]] = {}
    for detection in detections:
        by_image.setdefault(detection['image_id'], []).append(detection)
    kept: List[dict] = []
    for of_image in by_image.values():
        of_image = sorted(of_image, key=lambda d: -d['score'])
        kept.extend(d for d in of_image[:MAX_DETECTIONS] if d['area'] > 0)
    return [dict(d, id=number) for number, d in enumerate(kept, start=1)]


def lvis_precision(ground_truth: dict, detections: List[dict],
                   iou_type: str) -> np.ndarray:
    """Precision by the ``lvis`` package, LVIS's own implementation.

    Args:
        ground_truth (dict): ``images``, ``categories``, ``annotations`` as in
            LVIS v1.
        detections (list[dict]): What :func:`limit_detections` gives; they are
            written to.
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
        _Results(dict(ground_truth, annotations=detections)), iou_type)
    evaluation.params.area_rng = AREA_RANGES
    evaluation.params.area_rng_lbl = ['all']
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval['precision'][..., 0]


def faster_precision(ground_truth: dict, detections: List[dict],
                     iou_type: str) -> np.ndarray:
    """Precision by faster-coco-eval; as :func:`lvis_precision`."""
    from faster_coco_eval import COCO, COCOeval_faster
    ground_truth_api, detections_api = COCO(), COCO()
    ground_truth_api.dataset = _copy(ground_truth)
    detections_api.dataset = dict(ground_truth, annotations=detections)
    ground_truth_api.createIndex()
    detections_api.createIndex()
    evaluation = COCOeval_faster(
        ground_truth_api, detections_api, iou_type, lvis_style=True)
    params = evaluation.params
    params.areaRng, params.areaRngLbl = AREA_RANGES, ['all']
    params.maxDets = [MAX_DETECTIONS]
    evaluation.evaluate()
    evaluation.accumulate()
    return np.asarray(evaluation.eval['precision'])[..., 0, 0]


BACKENDS: Dict[str, Callable[[dict, List[dict], str], np.ndarray]] = dict(
    faster_coco_eval=faster_precision, lvis=lvis_precision)


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
