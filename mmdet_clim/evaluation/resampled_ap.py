# Licensed under the Apache License, Version 2.0.
"""AP of classes on resampled images, for intervals of differences."""
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from mmdet.evaluation import bbox_overlaps

#: Resamples whose curves are in memory at a time.
CHUNK = 50
RECALLS = np.linspace(0, 1, 101)


class ResampledAP:
    """AP of each class on the images, and on draws of as many of them.

    Draws are with replacement (bootstrap) and the same for whatever
    detections are asked about: of two models, the difference of a group's
    mean AP is paired, and its percentiles are an interval for it. The images
    are what varies; what seeds add is not in it.

    A detection is right as in COCO: by falling score, each takes the
    unmatched object of its class and image with which its IoU is largest, if
    that is at least ``iou``. One that is left and lies half in a crowd counts
    for nothing. AP is the mean precision at 101 recalls.

    Args:
        content (Mapping): A COCO file: ``images``, ``annotations`` and
            ``categories``.
        resamples (int): Draws.
        iou (float): The least IoU.
        seed (int): Of the draws.

    Raises:
        ValueError: If the file has no image.

    Attributes:
        names (tuple[str]): The classes, in the file's order.
    """

    def __init__(self,
                 content: Mapping,
                 resamples: int = 1000,
                 iou: float = 0.5,
                 seed: int = 0) -> None:
        images = [image['id'] for image in content['images']]
        if not images:
            raise ValueError('images: expected at least one, got none')
        self.iou = iou
        self.names = tuple(c['name'] for c in content['categories'])
        self._class = {c['id']: i for i, c in enumerate(content['categories'])}
        self._image = {number: i for i, number in enumerate(images)}
        self._objects: dict[tuple[int, int], list] = defaultdict(list)
        self._crowds: dict[tuple[int, int], list] = defaultdict(list)
        # Objects per image and class.
        self._counts = np.zeros((len(images), len(self.names)))
        for entry in content['annotations']:
            key = self._key(entry)
            if entry.get('iscrowd'):
                self._crowds[key].append(entry['bbox'])
            else:
                self._objects[key].append(entry['bbox'])
                self._counts[key] += 1
        draws = np.random.default_rng(seed).multinomial(
            len(images), np.full(len(images), 1 / len(images)), resamples)
        self.weights = np.concatenate(
            [np.ones((1, len(images))),
             draws.astype(float)])

    def _key(self, entry: Mapping) -> tuple[int, int]:
        return self._image[entry['image_id']], self._class[
            entry['category_id']]

    def __call__(self, detections: Sequence[Mapping]) -> np.ndarray:
        """AP of the classes.

        Args:
            detections (Sequence[Mapping]): COCO's result format. Those of
                other classes are passed over.

        Returns:
            ndarray: (1 + resamples, C), in [0, 1]; the first row is of the
            images themselves. NaN where no drawn image has an object.

        Raises:
            KeyError: If a detection is of an image that the file lacks.
        """
        of_key: dict[tuple[int, int], list] = defaultdict(list)
        for entry in detections:
            if entry['category_id'] in self._class:
                of_key[self._key(entry)].append(entry)
        per_class: dict[int, list] = defaultdict(list)
        for (image, number), found in of_key.items():
            per_class[number] += self._matched(image, number, found)
        totals = self.weights @ self._counts
        ap = np.full(totals.shape, np.nan)
        for number in range(len(self.names)):
            found = sorted(per_class[number], key=lambda f: -f[0])
            hits = np.array([f[1] for f in found], float)
            images = np.array([f[2] for f in found], int)
            for start in range(0, len(self.weights), CHUNK):
                rows = slice(start, start + CHUNK)
                ap[rows,
                   number] = _average_precision(self.weights[rows][:, images],
                                                hits, totals[rows, number])
        return ap

    def _matched(self, image: int, number: int,
                 found: Sequence[Mapping]) -> list:
        """(score, hit, image) of one class's detections in one image."""
        found = sorted(found, key=lambda entry: -entry['score'])
        boxes = _corners([entry['bbox'] for entry in found])
        objects = self._objects[image, number]
        overlaps = bbox_overlaps(boxes, _corners(objects))
        in_crowd: np.ndarray = np.zeros(len(found), bool)
        crowds = self._crowds[image, number]
        if crowds:
            in_crowd = bbox_overlaps(
                boxes, _corners(crowds), mode='iof').max(1) >= self.iou
        free: np.ndarray = np.ones(len(objects), bool)
        matched = []
        for row, entry in enumerate(found):
            best = np.where(free, overlaps[row], -1.)
            hit = len(best) > 0 and best.max() >= self.iou
            if hit:
                free[best.argmax()] = False
            elif in_crowd[row]:
                continue
            matched.append((entry['score'], hit, image))
        return matched


def _corners(boxes: Sequence[Sequence[float]]) -> np.ndarray:
    """[x, y, width, height] to (n, 4) xyxy."""
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    return corners


def _average_precision(weights: np.ndarray, hits: np.ndarray,
                       totals: np.ndarray) -> np.ndarray:
    """AP of one class on several draws.

    Args:
        weights (ndarray): (B, n), how often the image of each detection was
            drawn, best score first.
        hits (ndarray): (n,), 1 where the detection is right.
        totals (ndarray): (B,) objects in each draw.
    """
    right = (weights * hits).cumsum(1)
    seen = weights.cumsum(1)
    # Before the first drawn image nothing is detected.
    precision = np.divide(
        right, seen, out=np.zeros_like(right), where=seen > 0)
    precision = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    found = np.full(len(weights), np.nan)
    for row in np.flatnonzero(totals > 0):
        # Summed weights are whole numbers: the recalls compare exactly.
        places = np.searchsorted(right[row] / totals[row], RECALLS)
        found[row] = np.append(precision[row], 0)[places].mean()
    return found
