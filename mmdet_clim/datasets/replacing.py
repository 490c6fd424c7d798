# Licensed under the Apache License, Version 2.0.
"""Data sets that go on where an image cannot be read."""
from collections.abc import Iterator
from typing import Any

import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import BaseDataset
from torch.utils.data import Dataset

from .images import UnreadableImageError
from .transforms.loading import LoadImageText
from .unreadable import (
    NoReadableImageError,
    UnreadableImages,
    describe,
    replaced,
)

# Sides of the grey image that stands for one that cannot be read, in pixels.
_BLANK_SIDES = (32, 1333)
_GREY = 114


class ReplacesUnreadable(BaseDataset):
    """Goes on where an image cannot be read.

    In training the next readable sample takes its place. In test mode a grey
    image does, whose sample has ``unreadable=True`` in its meta information:
    the metrics of this package count it as one without a detection.

    Images are read by :class:`LoadImageText` where the pipeline has
    ``LoadImageFromFile``: one that is not of the formats of
    :mod:`~mmdet_clim.datasets.images`, or cut short, is unreadable, and no
    address is fetched.

    Args:
        report_every (int): The first unreadable images are reported, then
            one of each this many.
    """

    def __init__(self, *args, report_every: int = 100, **kwargs) -> None:
        self.unreadable = UnreadableImages(type(self).__name__, report_every)
        self._readable = 0
        super().__init__(*args, **kwargs)
        use_own_loader(self)

    def full_init(self) -> None:
        """Read the annotations."""
        super().full_init()
        self.unreadable.watch(len(self))

    def __getitem__(self, idx: int) -> Any:
        """The sample of this index, or what stands for it.

        Raises:
            NoReadableImageError: If ``max_refetch`` further samples cannot
                be read either; in test mode if none of the first 100 can.
        """
        self.full_init()
        if not self.test_mode:
            return replaced(self._prepared, idx, len(self),
                            self.max_refetch + 1, self.unreadable)
        try:
            data = self.prepare_data(idx)
            self._readable += 1
            return data
        except MemoryError:
            raise
        except Exception as error:
            reason = self._described(error, idx)
        self.unreadable.add(f'{reason}; it counts as without a detection', idx)
        noted = len(self.unreadable.indices)
        if not self._readable and noted >= min(100, len(self)):
            raise NoReadableImageError(
                f'{self.unreadable.owner}: none of the first {noted} of '
                f'{len(self)} images can be read, the last: {reason}')
        return self._blank(idx, reason)

    def _prepared(self, idx: int) -> Any:
        """The sample; an error names its image."""
        try:
            return self.prepare_data(idx)
        except (MemoryError, UnreadableImageError):
            raise
        except Exception as error:
            raise UnreadableImageError(
                self._described(error, idx),
                type(error).__name__) from error

    def _described(self, error: Exception, idx: int) -> str:
        if isinstance(error, UnreadableImageError):
            return str(error)
        path = self.get_data_info(idx).get('img_path')
        return f'img_path={path!r}: {describe(error, idx)}'

    def _blank(self, idx: int, reason: str) -> Any:
        """The sample with a grey image."""
        sample = self.get_data_info(idx)
        least, most = _BLANK_SIDES
        shape = tuple(
            min(max(int(sample.get(key) or least), least), most)
            for key in ('height', 'width'))
        sample.update(
            img=np.full((*shape, 3), _GREY, np.uint8),
            img_shape=shape,
            ori_shape=shape)
        try:
            for transform in self.pipeline.transforms:
                if not isinstance(transform,
                                  (LoadImageFromFile, LoadImageText)):
                    sample = transform(sample)
        except Exception as error:
            raise UnreadableImageError(
                f'{reason}; its replacement, a grey image of {shape}, failed '
                f'in the pipeline too: {describe(error, idx)}') from error
        packed = sample.get('data_samples')
        if packed is None:
            sample['unreadable'] = True
        else:
            packed.set_metainfo(dict(unreadable=True))
        return sample


def use_own_loader(dataset: Dataset) -> None:
    """Have a data set read images by :class:`LoadImageText`.

    In the place of MMCV's ``LoadImageFromFile``, where that is asked for what
    both can do. Data sets within this one are changed as well.
    """
    for part in _with_inner(dataset):
        transforms = getattr(
            getattr(part, 'pipeline', None), 'transforms', None)
        if not isinstance(transforms, list):
            continue
        for number, step in enumerate(transforms):
            if (type(step) is LoadImageFromFile and step.color_type == 'color'
                    and step.imdecode_backend in (None, 'cv2')):
                transforms[number] = LoadImageText(
                    to_float32=step.to_float32, backend_args=step.backend_args)


def unreadable_images(dataset: Dataset) -> Iterator[tuple]:
    """Of a data set and those within it, what could not be read.

    Yields:
        tuple[Dataset, UnreadableImages]: One that notes it, and its notes.
    """
    for part in _with_inner(dataset):
        notes = getattr(part, 'unreadable', None)
        if isinstance(notes, UnreadableImages):
            yield part, notes
        elif isinstance(notes, list):
            # Of several sources.
            yield from zip(part.datasets, notes)


def _with_inner(dataset: Dataset) -> Iterator[Dataset]:
    yield dataset
    for inner in (getattr(dataset, 'dataset',
                          None), *(getattr(dataset, 'datasets', None) or ())):
        if inner is not None:
            yield from _with_inner(inner)
