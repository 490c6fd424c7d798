# Licensed under the Apache License, Version 2.0.
"""Images with their annotations, packed as they come out of a file."""
import pickle
from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np

from .coco_annotations import CocoChecker, image_file_name
from .rows import Rows

#: What an annotation keeps. All else that a file says of one is left out.
ANNOTATION_KEYS = ('category_id', 'bbox', 'area', 'iscrowd', 'ignore',
                   'segmentation')


class PackedBoxes(Rows):
    """Takes in the entries of a file one by one, then gives them by image.

    An annotation is a few bytes at the end of one long array, so that memory
    never holds more than what stays, whatever the order of the file.

    A row holds ``raw_img_info`` (``id`` and ``img_id``, ``file_name``,
    ``width``, ``height``) and ``raw_ann_info``, the annotations of the image
    in the order of the file, as :meth:`mmdet.datasets.CocoDataset.
    parse_data_info` takes them.
    """

    def __init__(self) -> None:
        super().__init__(0)
        self.categories: list[dict] = []
        self._ids = array('q')
        self._place: dict[int, int] = {}
        self._names = _Blobs()
        self._annotations = _Blobs()
        #: Of each annotation, its image by number, and its category.
        self.image_of: Any = array('i')
        self.category_of: Any = array('q')

    def keep(self, key: str, number: int | None, entry: Any) -> None:
        """Take in an entry, as :func:`~.coco_annotations.stream_coco` calls.

        Args:
            key (str): ``categories``, ``images`` or ``annotations``; others
                are left out.
            number (int, optional): Its place in the list.
            entry: The entry, which was checked.
        """
        if key == 'categories':
            self.categories.append(entry)
        elif key == 'images':
            self._place[entry['id']] = len(self._ids)
            self._ids.append(entry['id'])
            self._names.add(image_file_name(entry).encode())
        elif key == 'annotations':
            self.image_of.append(self._place[entry['image_id']])
            self.category_of.append(entry['category_id'])
            kept = tuple(map(entry.get, ANNOTATION_KEYS))
            self._annotations.add(pickle.dumps(kept, pickle.HIGHEST_PROTOCOL))

    def finish(self, checker: CocoChecker) -> None:
        """Sort the annotations by image, when the file has ended.

        Args:
            checker (CocoChecker): What checked the entries: sizes may have
                turned out wrong.
        """
        #: (N, 2) int64, width and height of each image in pixels.
        self.all_sizes = np.array([checker.sizes[i] for i in self._ids],
                                  dtype=np.int64)
        self._place.clear()
        self.image_of = np.asarray(self.image_of)
        self.category_of = np.asarray(self.category_of)
        self._order = np.argsort(self.image_of, kind='stable').astype(np.int32)
        self._edges: Any = np.searchsorted(
            self.image_of, np.arange(len(self._ids) + 1), sorter=self._order)
        self.index = range(len(self._ids))

    def row(self, number: int) -> dict[str, Any]:
        width, height = self.all_sizes[number].tolist()
        image_id = self._ids[number]
        own = self._order[self._edges[number]:self._edges[number + 1]]
        return dict(
            raw_img_info=dict(
                id=image_id,
                img_id=image_id,
                file_name=self._names[number].decode(),
                width=width,
                height=height),
            raw_ann_info=[
                dict(
                    zip(ANNOTATION_KEYS,
                        pickle.loads(self._annotations[place])),
                    image_id=image_id) for place in own.tolist()
            ])

    def all_orientations(self) -> Iterator[np.ndarray]:
        width, height = self.all_sizes.T
        yield (height > width).astype(np.int8)


class _Blobs:
    """Bytes after bytes, found by their number."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._ends = array('q', [0])

    def add(self, data: bytes) -> None:
        """Put some at the end."""
        self._data += data
        self._ends.append(len(self._data))

    def __getitem__(self, number: int) -> bytes:
        return bytes(self._data[self._ends[number]:self._ends[number + 1]])
