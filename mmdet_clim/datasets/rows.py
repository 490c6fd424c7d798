# Licensed under the Apache License, Version 2.0.
"""Samples that are made of packed rows when they are asked for."""
import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset

from .draws import DrawnSamples


class Rows(ABC):
    """Rows of which some may be left out, without a copy of the others.

    Args:
        count (int): How many there are.
    """

    def __init__(self, count: int) -> None:
        self.index: range | np.ndarray = range(count)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: int | slice | np.ndarray) -> Any:
        """A row; or those of a slice or an array of numbers."""
        if isinstance(index, (slice, np.ndarray)):
            some = copy.copy(self)
            rows = np.arange(len(self)) if isinstance(self.index,
                                                      range) else self.index
            some.index = rows[index]
            return some
        return self.row(int(self.index[index]))

    def __deepcopy__(self, memo: dict) -> 'Rows':
        # Nothing changes them.
        return copy.copy(self)

    def orientations(self) -> Iterator[np.ndarray]:
        """See :func:`~mmdet_clim.datasets.draws.image_orientations`."""
        if isinstance(self.index, range):
            yield from self.all_orientations()
        else:
            yield np.concatenate([*self.all_orientations()])[self.index]

    @abstractmethod
    def row(self, number: int) -> dict[str, Any]:
        """A new dict of a row, by its number among all."""

    @abstractmethod
    def all_orientations(self) -> Iterator[np.ndarray]:
        """Those of all rows; see :meth:`orientations`."""


class DatasetOfRows(DrawnSamples, BaseDataset):
    """A data set whose ``load_data_list`` gives :class:`Rows`.

    MMEngine's would make a list of samples of them and serialise that.
    """

    data_list: Any

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **{**kwargs, 'serialize_data': False})

    def get_data_info(self, idx: int) -> dict:
        """The sample of an index, before its pipeline."""
        self.full_init()
        sample = self.sample_of(self.data_list[idx])
        sample['sample_idx'] = idx if idx >= 0 else len(self) + idx
        return sample

    def sample_of(self, row: dict) -> dict:
        """The sample that a row is made into."""
        return row

    def image_orientations(self) -> Iterator[np.ndarray]:
        self.full_init()
        return self.data_list.orientations()

    def _get_unserialized_subset(self, indices: Sequence[int] | int) -> Rows:
        if isinstance(indices, int):
            return super()._get_unserialized_subset(indices)
        return self.data_list[np.asarray(indices, dtype=np.int64)]
