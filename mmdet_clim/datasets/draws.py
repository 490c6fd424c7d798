# Licensed under the Apache License, Version 2.0.
"""Samples that depend on when they are drawn, and not on who draws them."""
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from mmengine.dataset import ClassBalancedDataset as _ClassBalancedDataset
from torch.utils.data import Dataset, get_worker_info

from mmdet_clim.registry import DATASETS
from mmdet_clim.seeds import seeded_generators


class Draw(int):
    """An index of a data set, with the place of its sample in the training.

    Args:
        rank (int): Which process draws it.
        iteration (int): The batch, counted from the start of the training.
        slot (int): The place in the batch.
        batch_size (int): Samples in that batch.
    """

    seed: int
    rank: int
    iteration: int
    slot: int
    batch_size: int

    def __new__(cls, index: int, seed: int, rank: int, iteration: int,
                slot: int, batch_size: int) -> 'Draw':
        draw = super().__new__(cls, index)
        draw.seed, draw.rank, draw.iteration = seed, rank, iteration
        draw.slot, draw.batch_size = slot, batch_size
        return draw

    def __reduce__(self) -> tuple:
        return type(self), (int(self), self.seed, self.rank, self.iteration,
                            self.slot, self.batch_size)

    @property
    def place(self) -> tuple:
        """(iteration, slot), ascending in the order of the draws."""
        return self.iteration, self.slot


class StreamPlace(NamedTuple):
    """A place in what one worker of all ranks draws of a source.

    Args:
        lane (int): Which worker, counted over all ranks.
        lanes (int): Workers of all ranks.
        position (int): Samples that it drew of the source before.
    """

    source: int
    lane: int
    lanes: int
    position: int


@dataclass(eq=False)
class Drawing:
    """The draw whose sample is being made, for the transforms that make it.

    Args:
        window (Callable): ``window(count)``: the last ``count`` draws of this
            source in this stream, oldest first, the present one among them.
        recall (Callable): ``recall(draw, keeper)``: make the sample of an
            earlier draw again, for what ``keeper`` keeps of it.
        stream_place (Callable): ``stream_place()``: where the sample is in
            the stream of its worker.
        keeper (object, optional): The transform that a recalled sample is
            made for.
    """

    draw: Draw
    window: Callable[[int], list[Draw]]
    recall: Callable[[Draw, object], Any]
    stream_place: Callable[[], StreamPlace]
    keeper: object | None = None
    kept: Any = None


_current: Drawing | None = None


def current_drawing() -> Drawing | None:
    """The drawing of this process; None if an index came without a place."""
    return _current


@contextmanager
def _drawing(drawing: Drawing) -> Iterator[None]:
    """Make it the current one, with generators that are seeded by its draw."""
    global _current
    outer, _current = _current, drawing
    draw = drawing.draw
    try:
        with seeded_generators('sample', draw.seed, draw.rank, draw.iteration,
                               draw.slot):
            yield
    finally:
        _current = outer


class _Stream:
    """What one process draws: every n-th batch of a rank, n workers.

    ::

        batch      0  1  2  3  4  5  6 | 0  1  2  3 ...    an epoch of 7
        worker     0  1  0  1  0  1  0 | 0  1  0  1 ...    of two

    After a jump, as at the start of a resumed run, what the process would
    have drawn until then follows from the sampler.
    """

    def __init__(self) -> None:
        self.iteration: int | None = None
        self.workers = 1
        self._batch: list[Draw] = []
        self._windows: dict[int, deque[Draw]] = {}

    def follow(self, draw: Draw, source: int, sampler) -> None:
        """Take note of a draw."""
        info = get_worker_info()
        workers = 1 if info is None else info.num_workers
        same_batch = (
            draw.iteration == self.iteration and workers == self.workers
            and self._batch[-1].slot < draw.slot)
        if not same_batch:
            if (self.iteration is None or workers != self.workers
                    or draw.iteration != sampler.next_of_stream(
                        self.iteration, workers)):
                self._windows.clear()
            self.iteration, self.workers = draw.iteration, workers
            self._batch = []
        self._batch.append(draw)
        if source in self._windows:
            self._windows[source].append(draw)

    def window(self, count: int, source: int, dataset, sampler) -> list[Draw]:
        """The last draws of a source, the present one among them."""
        known = self._windows.get(source)
        if known is None or known.maxlen < count:
            past = sampler.past_of_stream(source, self.iteration, self.workers,
                                          count)
            own = [d for d in self._batch if dataset.source_of(d) == source]
            known = deque([*past, *own], maxlen=count)
            self._windows[source] = known
        return list(known)[-count:]


class DrawnSamples:
    """A data set whose samples depend on the draw alone.

    The first base of a data set. An index that comes from
    ``MultiSourceSampler`` is a :class:`Draw`: Python's, NumPy's and torch's
    generators are then seeded for this one sample, by the run's seed, the
    rank, the iteration and the place in the batch, and put back after it.
    The sample is the same whichever worker makes it, however far ahead, and
    in a resumed run. Another index is passed on as it is.

    Transforms find the draw, and those before it, in
    :func:`current_drawing`.
    """

    #: The sampler that draws from this data set; it says so itself.
    sampler: Any = None
    _stream: _Stream | None = None

    def source_of(self, index: int) -> int:
        """The number of the source that an index belongs to."""
        return 0

    def __getitem__(self, index: int) -> Any:
        """The sample of an index, or of a draw."""
        if not isinstance(index, Draw) or self.sampler is None:
            return super().__getitem__(index)
        if self._stream is None:
            self._stream = _Stream()
        source = self.source_of(index)
        self._stream.follow(index, source, self.sampler)
        with _drawing(self._drawing_of(index, source)):
            return super().__getitem__(int(index))

    def __getitems__(self, indices: list[int]) -> list[Any]:
        """The samples of a batch.

        Raises:
            ValueError: If the loader's batches are not the sampler's.
        """
        first = indices[0] if indices else None
        if isinstance(first,
                      Draw) and (len(indices) != first.batch_size
                                 or indices[-1].iteration != first.iteration):
            raise ValueError(
                batch_size_contradiction(len(indices), first.batch_size))
        return [self[index] for index in indices]

    def image_orientations(self) -> Iterator[np.ndarray]:
        """See :func:`image_orientations`."""
        return _told_orientations(self)

    def _drawing_of(self,
                    draw: Draw,
                    source: int,
                    keeper: object | None = None) -> Drawing:
        return Drawing(
            draw, lambda count: self._stream.window(count, source, self, self.
                                                    sampler),
            self._recall, lambda: self.sampler.stream_place(
                source, draw, self._stream.workers), keeper)

    def _recall(self, draw: Draw, keeper: object) -> Any:
        """What a transform keeps of an earlier draw, None if nothing."""
        drawing = self._drawing_of(draw, self.source_of(draw), keeper)
        with _drawing(drawing):
            super().__getitem__(int(draw))
        return drawing.kept


def image_orientations(dataset: Dataset) -> Iterator[np.ndarray]:
    """Which images of a data set are tall, without opening them.

    Args:
        dataset (Dataset): With ``get_data_info``.

    Yields:
        ndarray: Of some samples in a row, (n, ) int8; see
        :func:`orientation`.
    """
    return dataset.image_orientations() if isinstance(
        dataset, DrawnSamples) else _told_orientations(dataset)


def orientation(height: int | None, width: int | None) -> int:
    """1 of a tall image, 0 of others, -1 where a side is 0 or None."""
    return int(height > width) if height and width else -1


def _told_orientations(dataset: Any) -> Iterator[np.ndarray]:
    """What follows from the sizes that ``get_data_info`` tells."""
    infos = map(dataset.get_data_info, range(len(dataset)))
    yield np.fromiter((orientation(info.get('height'), info.get('width'))
                       for info in infos), np.int8)


def batch_size_contradiction(loader: int, sampler: int) -> str:
    """The message of two batch sizes that differ."""
    return (f'train_dataloader.batch_size is {loader}, expected '
            f'train_dataloader.sampler.batch_size, which is {sampler}; leave '
            'that one out, with batch_sampler=dict('
            "type='mmdet_clim.MultiSourceBatchSampler') the first is enough")


@DATASETS.register_module()
class ClassBalancedDataset(DrawnSamples, _ClassBalancedDataset):
    """MMEngine's, whose samples depend on the draw alone."""

    def image_orientations(self) -> Iterator[np.ndarray]:
        yield np.concatenate([*image_orientations(self.dataset)
                              ])[self.repeat_indices]
