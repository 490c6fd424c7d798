# Licensed under the Apache License, Version 2.0.
"""Several sources in one data loader, each with its share of every batch."""
import logging
import math
from collections import deque
from fractions import Fraction
from typing import Any, Deque, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np
from mmengine.dataset import ConcatDataset
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.logging import print_log
from torch.utils.data import Dataset, Sampler

from mmdet_clim.registry import DATA_SAMPLERS, DATASETS

from .replacing import ReplacesUnreadable, use_own_loader
from .unreadable import UnreadableImages, replaced

#: Samples in a row that a source of another package may lack.
MAX_TRIES = 100


@DATASETS.register_module()
class MultiSourceDataset(ConcatDataset):
    """Sources one after the other, with the meta information of the first.

    MMEngine's own ``ConcatDataset`` refuses sources whose ``metainfo``
    differ, and mmdet's turns it into a list, which is saved in checkpoints
    and then breaks ``DetInferencer``. Here the first source speaks for all.

    Whatever data set a source is, an image of it that cannot be read, or
    fails in a transform, is counted, reported and replaced by the next of the
    same source; see
    :class:`~mmdet_clim.datasets.replacing.ReplacesUnreadable`.

    Args:
        datasets (Sequence[dict | Dataset]): The sources, data sets or their
            configs. The first is the one with boxes.
        lazy_init (bool): Leave reading of the annotations for later.

    Raises:
        ValueError: If there is no source, one is empty, or one has other
            classes than the first (its class indices would mean something
            else).
    """

    def __init__(self, datasets: Sequence, lazy_init: bool = False) -> None:
        if not datasets:
            raise ValueError('datasets: expected at least one source, got '
                             'none')
        self.datasets = [
            DATASETS.build(d) if isinstance(d, dict) else d for d in datasets
        ]
        self._unreadable = []
        for number, dataset in enumerate(self.datasets):
            use_own_loader(dataset)
            self._unreadable.append(
                UnreadableImages(f'datasets[{number}], '
                                 f'{type(dataset).__name__}'))
        self._metainfo = _own_metainfo(self.datasets[0])
        first = self._metainfo.get('classes')
        for number, dataset in enumerate(self.datasets):
            classes = _own_metainfo(dataset).get('classes')
            if first and classes and tuple(classes) != tuple(first):
                raise ValueError(
                    f'datasets[{number}]: expected the classes of '
                    f'datasets[0] in their order, got {len(classes)} classes '
                    f'where it has {len(first)}; different at '
                    f'{sorted(set(classes) ^ set(first))[:10]}')
        self._fully_initialized = False
        if not lazy_init:
            self.full_init()

    def full_init(self) -> None:
        """Read every source."""
        if self._fully_initialized:
            return
        super().full_init()
        for number, dataset in enumerate(self.datasets):
            if not len(dataset):
                raise ValueError(f'datasets[{number}]: expected at least one '
                                 'sample, got none')
            self._unreadable[number].watch(len(dataset))

    def __getitem__(self, idx: int) -> Any:
        """The sample of a global index, or the next of its source.

        Args:
            idx (int): The global index.

        Raises:
            NoReadableImageError: If many samples in a row cannot be read.
        """
        self.full_init()
        source, index = self._get_ori_dataset_idx(idx)
        dataset = self.datasets[source]
        if isinstance(dataset, ReplacesUnreadable) or getattr(
                dataset, 'test_mode', False):
            return dataset[index]
        return replaced(dataset.__getitem__, index, len(dataset), MAX_TRIES,
                        self._unreadable[source])

    def get_dataset_source(self, idx: int) -> int:
        """The number of the source that a global index belongs to."""
        return self._get_ori_dataset_idx(idx)[0]


def _own_metainfo(dataset: Dataset) -> dict:
    """The meta information of a source, of the first of its own sources."""
    metainfo = dataset.metainfo
    # mmdet's ConcatDataset has a list where its data sets differ.
    return metainfo[0] if isinstance(metainfo, list) else metainfo


@DATA_SAMPLERS.register_module()
class MultiSourceSampler(Sampler):
    """Draws every batch from several sources in a fixed ratio.

    ::

        source_ratio=[2, 1, 1], batch_size=4, two ranks

                  batch 0        batch 1
        rank 0   a a b c        a a b c     an epoch ends when source a,
        rank 1   a a b c        a a b c     the epoch source, is through

    *Ratio.* Batch ``k`` of every rank holds the same number of samples of
    each source. Where the ratio does not divide ``batch_size`` the counts
    change from batch to batch by the largest remainder, carried along, so
    that over an epoch they follow the ratio to within one sample.

    *Epochs* are finite and of the same length on every rank: one pass of
    ``epoch_source`` (its last batch is filled from its start), or
    ``epoch_length`` batches. The other sources go on where the epoch before
    stopped, so all their samples are seen before one comes again.

    *Resuming.* The order depends on ``seed`` and :meth:`set_epoch` alone.

    *Ranks* draw disjoint parts of one common order.

    *Aspect grouping*: a batch holds only wide (width >= height) or only tall
    images as far as the sources have them, on all ranks alike, known from
    ``get_data_info``, without opening images. What is left over at the end
    of an epoch forms mixed batches; a source that lacks a group gives what
    it has.

    Args:
        dataset (ConcatDataset): With ``cumulative_sizes``, such as
            :class:`MultiSourceDataset`.
        batch_size (int): Samples per batch of one rank, the same as that of
            the data loader.
        source_ratio (Sequence[float]): The share of each source, in any
            unit.
        shuffle (bool): Draw in random order.
        seed (int, optional): The same on all ranks. A common random one if
            None.
        aspect_grouping (bool): Batches of one orientation.
        epoch_source (int): The source whose pass is an epoch.
        epoch_length (int, optional): Batches of an epoch instead.

    Raises:
        ValueError: If an argument does not fit the data set or the others.
    """

    def __init__(self,
                 dataset: Dataset,
                 batch_size: int,
                 source_ratio: Sequence[float],
                 shuffle: bool = True,
                 seed: Optional[int] = None,
                 aspect_grouping: bool = False,
                 epoch_source: int = 0,
                 epoch_length: Optional[int] = None) -> None:
        if not hasattr(dataset, 'cumulative_sizes'):
            raise ValueError(
                'dataset: expected one with cumulative_sizes, such as '
                f'MultiSourceDataset, got {type(dataset).__name__}')
        ends = list(dataset.cumulative_sizes)
        sizes = [end - start for start, end in zip([0, *ends], ends)]
        if len(source_ratio) != len(sizes):
            raise ValueError(
                f'source_ratio: expected one number for each of {len(sizes)} '
                f'sources, got {source_ratio}')
        if not all(0 < r < math.inf for r in source_ratio):
            raise ValueError('source_ratio: expected positive numbers, got '
                             f'{source_ratio}')
        if batch_size < 1:
            raise ValueError(
                f'batch_size: expected at least 1, got {batch_size}')
        if not 0 <= epoch_source < len(sizes):
            raise ValueError(
                f'epoch_source: expected a source of 0 to {len(sizes) - 1}, '
                f'got {epoch_source}')
        if epoch_length is not None and epoch_length < 1:
            raise ValueError(
                f'epoch_length: expected at least 1, got {epoch_length}')
        self.dataset = dataset
        self.batch_size = batch_size
        self.source_ratio = tuple(source_ratio)
        self.shuffle = shuffle
        self.rank, self.world_size = get_dist_info()
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        self._sizes = sizes
        self._offsets = [0, *ends[:-1]]
        # Which source starts afresh in each epoch; with a fixed length none.
        self._restarts = epoch_source if epoch_length is None else None
        self._counts = self._batch_counts(epoch_source, epoch_length)
        self._is_tall = self._read_orientations() if aspect_grouping else None

    def _batch_counts(self, epoch_source: int,
                      epoch_length: Optional[int]) -> List[Tuple[int, ...]]:
        """Samples of each source in each batch of an epoch of one rank."""
        shares = [
            Fraction(r).limit_denominator(10**6) for r in self.source_ratio
        ]
        quotas = [self.batch_size * s / sum(shares) for s in shares]
        carried = [Fraction(0)] * len(quotas)
        counts: List[Tuple[int, ...]] = []
        wanted = math.ceil(self._sizes[epoch_source] / self.world_size)
        drawn = 0
        while (len(counts) < epoch_length if epoch_length else drawn < wanted):
            due = [q + c for q, c in zip(quotas, carried)]
            count = [max(math.floor(d), 0) for d in due]
            by_remainder = sorted(
                range(len(due)), key=lambda s: count[s] - due[s])
            for source in by_remainder[:self.batch_size - sum(count)]:
                count[source] += 1
            carried = [d - c for d, c in zip(due, count)]
            counts.append(tuple(count))
            drawn += count[epoch_source]
        return counts

    def _read_orientations(self) -> List[bool]:
        """True where an image is taller than wide, by global index."""
        tall, unknown = [], 0
        for index in range(sum(self._sizes)):
            info = self.dataset.get_data_info(index)
            height, width = info.get('height'), info.get('width')
            unknown += height is None or width is None
            tall.append((height or 0) > (width or height or 0))
        if unknown:
            print_log(
                f'aspect_grouping: {unknown} of {len(tall)} samples have no '
                "'height' and 'width'; they count as wide",
                logger='current',
                level=logging.WARNING)
        return tall

    def _pass(self, source: int, number: int) -> List[int]:
        """The global indices of a source in the order of one pass."""
        size, offset = self._sizes[source], self._offsets[source]
        if not self.shuffle:
            return list(range(offset, offset + size))
        # Seeds that are only added up would give one source in one pass the
        # order of another source in another pass.
        generator = np.random.default_rng((self.seed, source, number))
        return (generator.permutation(size) + offset).tolist()

    def _epoch_indices(self, source: int) -> List[int]:
        """What all ranks together draw of a source in this epoch."""
        need = self.world_size * sum(count[source] for count in self._counts)
        size = self._sizes[source]
        if source == self._restarts:
            order = self._pass(source, self.epoch)
            return (order * math.ceil(need / size))[:need]
        number, start = divmod(self.epoch * need, size)
        indices: List[int] = []
        while len(indices) < start + need:
            indices.extend(self._pass(source, number))
            number += 1
        return indices[start:start + need]

    def _global_batches(self) -> Iterator[List[List[int]]]:
        """Of each batch, the indices of all ranks by source."""
        drawn = [self._epoch_indices(s) for s in range(len(self._sizes))]
        if self._is_tall is None:
            starts = [0] * len(drawn)
            for counts in self._counts:
                batch = []
                for source, count in enumerate(counts):
                    end = starts[source] + count * self.world_size
                    batch.append(drawn[source][starts[source]:end])
                    starts[source] = end
                yield batch
            return
        yield from _group_batches(drawn, self._is_tall,
                                  [[c * self.world_size for c in counts]
                                   for counts in self._counts])

    def __iter__(self) -> Iterator[int]:
        """Global indices of this rank, batch after batch."""
        for batch in self._global_batches():
            for indices in batch:
                count = len(indices) // self.world_size
                yield from indices[self.rank * count:(self.rank + 1) * count]

    def __len__(self) -> int:
        """Samples that this rank draws in an epoch."""
        return len(self._counts) * self.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, as MMEngine's loops do before each one."""
        self.epoch = epoch


def _group_batches(
        drawn: Sequence[Sequence[int]], is_tall: Sequence[bool],
        counts: Sequence[Sequence[int]]) -> Iterator[List[List[int]]]:
    """Batches of one orientation, as far as the drawn indices allow.

    Args:
        drawn: Of each source, the indices of an epoch; as many as ``counts``
            sums up to.
        is_tall: By global index.
        counts: Of each batch, the number of samples of each source.

    Yields:
        list[list[int]]: Of each batch, the indices by source. Each drawn
        index comes exactly once.
    """
    queues: List[Dict[bool, Deque[Tuple[int, int]]]] = []
    for indices in drawn:
        queue: Dict[bool, Deque[Tuple[int, int]]] = {
            False: deque(),
            True: deque()
        }
        for position, index in enumerate(indices):
            queue[is_tall[index]].append((position, index))
        queues.append(queue)
    # The source with the most samples says which group comes next: that of
    # its first waiting sample, unless too few of that group are left.
    lead = max(range(len(drawn)), key=lambda s: len(drawn[s]))
    for count in counts:
        groups = sorted(
            (group for group in (False, True) if queues[lead][group]),
            key=lambda group: queues[lead][group][0])
        full = [g for g in groups if len(queues[lead][g]) >= count[lead]]
        group = (full or groups or [False])[0]
        batch = []
        for source, number in enumerate(count):
            own, other = queues[source][group], queues[source][not group]
            batch.append([(own or other).popleft()[1] for _ in range(number)])
        yield batch
