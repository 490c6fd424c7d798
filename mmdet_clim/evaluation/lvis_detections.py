# Licensed under the Apache License, Version 2.0.
"""What a detector found in LVIS's images, as arrays."""
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pycocotools import mask as mask_utils

#: Detections of an image that LVIS evaluates, those with the best scores.
MAX_DETECTIONS = 300
#: Detections of a class that "fixed AP" evaluates, over all images.
MAX_OF_CLASS = 10000
# pycocotools counts the masks of one call in eight bits.
_MASKS_AT_ONCE = 255


class LVISDetections(NamedTuple):
    """N detections.

    Args:
        image_ids (np.ndarray): Shape (N, ).
        category_ids (np.ndarray): Shape (N, ).
        scores (np.ndarray): Shape (N, ), float64.
        boxes (np.ndarray): Shape (N, 4), xywh pixels, float64.
        masks (np.ndarray, optional): Shape (N, ), run-length encodings.
    """

    image_ids: np.ndarray
    category_ids: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    masks: np.ndarray | None = None

    def select(self, rows: np.ndarray) -> 'LVISDetections':
        """Some of them.

        Args:
            rows (np.ndarray): Their indices, or N flags.
        """
        masks = None if self.masks is None else self.masks[rows]
        return LVISDetections(self.image_ids[rows], self.category_ids[rows],
                              self.scores[rows], self.boxes[rows], masks)

    def mask_list(self) -> list[dict]:
        """The masks in a list; none where there are none."""
        return [] if self.masks is None else self.masks.tolist()

    def areas(self, iou_type: str) -> np.ndarray:
        """Pixels of each box ('bbox') or mask ('segm'), shape (N, )."""
        if iou_type == 'bbox':
            return self.boxes[:, 2:].prod(1)
        masks = self.mask_list()
        return np.concatenate([
            np.zeros(0), *(mask_utils.area(masks[start:start + _MASKS_AT_ONCE])
                           for start in range(0, len(masks), _MASKS_AT_ONCE))
        ])

    def as_dicts(self, iou_type: str) -> list[dict]:
        """LVIS's result format with areas, and ids from 1 on."""
        shapes: Sequence = self.boxes.tolist()
        key = 'bbox'
        if iou_type == 'segm':
            key, shapes = 'segmentation', list(
                map(_text_encoding, self.mask_list()))
        columns = zip(self.image_ids.tolist(), self.category_ids.tolist(),
                      self.scores.tolist(), shapes,
                      self.areas(iou_type).tolist())
        return [{
            'id': number,
            'image_id': image,
            'category_id': category,
            'score': score,
            key: shape,
            'area': area
        } for number, (image, category, score, shape,
                       area) in enumerate(columns, 1)]


def best_of_groups(groups: np.ndarray, scores: np.ndarray,
                   limit: int) -> np.ndarray:
    """Indices of the best of each group, sorted by group and score.

    Args:
        groups (np.ndarray): Shape (N, ), integers.
        scores (np.ndarray): Shape (N, ). Of equal ones the earlier is first.
        limit (int): So many at most of each group.
    """
    order = np.lexsort((-scores, groups))
    ordered = groups[order]
    rank = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return order[rank < limit]


def evaluated(detections: LVISDetections, ground_truth: dict, iou_type: str,
              fixed: bool) -> LVISDetections:
    """The detections that LVIS's evaluation counts.

    Args:
        detections (LVISDetections): All of them.
        ground_truth (dict): ``images``, ``categories``, ``annotations`` as in
            LVIS v1.
        iou_type (str): 'bbox' or 'segm'.
        fixed (bool): The 10,000 best of each class over all images, and not
            the 300 best of each image.

    Returns:
        LVISDetections: Of the best ones those with an area whose class is
        annotated in their image: it has the class, or is known to be without
        it.
    """
    groups, limit = (detections.category_ids,
                     MAX_OF_CLASS) if fixed else (detections.image_ids,
                                                  MAX_DETECTIONS)
    best = detections.select(best_of_groups(groups, detections.scores, limit))
    best = best.select(
        np.isin(
            _keys(best.image_ids, best.category_ids, ground_truth),
            _annotated(ground_truth)))
    return best.select(best.areas(iou_type) > 0)


def _annotated(ground_truth: dict) -> np.ndarray:
    """A number for each image and class of which the file knows."""
    known = {c['id'] for c in ground_truth['categories']}
    pairs = [(a['image_id'], a['category_id'])
             for a in ground_truth['annotations']]
    pairs += [(image['id'], category) for image in ground_truth['images']
              for category in image['neg_category_ids'] if category in known]
    images, categories = np.array(pairs, np.int64).reshape(-1, 2).T
    return np.unique(_keys(images, categories, ground_truth))


def _keys(images: np.ndarray, categories: np.ndarray,
          ground_truth: dict) -> np.ndarray:
    """One number of an image and a class, from their ids in the file."""
    image_ids, category_ids = (
        np.sort(np.array([entry['id'] for entry in ground_truth[key]]))
        for key in ('images', 'categories'))
    return np.searchsorted(image_ids,
                           images) * len(category_ids) + np.searchsorted(
                               category_ids, categories)


def _text_encoding(encoding: dict) -> dict:
    """The same run lengths, as text."""
    counts = encoding['counts']
    if isinstance(counts, bytes):
        counts = counts.decode()
    return dict(size=list(encoding['size']), counts=counts)
