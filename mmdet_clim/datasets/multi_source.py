# Licensed under the Apache License, Version 2.0.
"""Several sources in one data loader, each with its share of every batch."""
import logging
import math
from collections import deque
from collections.abc import Iterator, Sequence
from fractions import Fraction
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from mmengine.dataset import ConcatDataset
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.logging import print_log
from torch.utils.data import Dataset, Sampler

from mmdet_clim.checks import check_whole
from mmdet_clim.registry import DATA_SAMPLERS, DATASETS
from mmdet_clim.seeds import seed_sequence

from .draws import (
    Draw,
    DrawnSamples,
    StreamPlace,
    batch_size_contradiction,
    image_orientations,
)
from .pass_order import KeyedPermutation, pass_order
from .replacing import ReplacesUnreadable, use_own_loader
from .unreadable import UnreadableImages, replaced

#: Samples in a row that a source of another package may lack.
MAX_TRIES = 100
# Below it a source is not met in any training.
SMALLEST_SHARE = 1e-6
LONGEST_EPOCH = 10**8
# Batches after which a ratio of long numbers begins again.
LONGEST_PERIOD = 10**5
# Batches among which aspect groups are formed. Of two sources, about one in a
# hundred is mixed.
GROUPED_BATCHES = 1 << 10


class _ReplacingSources(ConcatDataset):
    """Data sets of which an unreadable sample is replaced by its next.

    ``unreadable`` holds the notes of each.
    """

    unreadable: list[UnreadableImages]

    def __getitem__(self, idx: int) -> Any:
        """The sample of a global index, or the next of its source.

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
                        self.unreadable[source])


@DATASETS.register_module()
class MultiSourceDataset(DrawnSamples, _ReplacingSources):
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
        self.unreadable = []
        for number, dataset in enumerate(self.datasets):
            use_own_loader(dataset)
            self.unreadable.append(
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
            self.unreadable[number].watch(len(dataset))

    def get_dataset_source(self, idx: int) -> int:
        """The number of the source that a global index belongs to."""
        return self._get_ori_dataset_idx(idx)[0]

    source_of = get_dataset_source

    def image_orientations(self) -> Iterator[np.ndarray]:
        for dataset in self.datasets:
            yield from image_orientations(dataset)


def _own_metainfo(dataset: Dataset) -> dict:
    """The meta information of a source, of the first of its own sources."""
    metainfo = dataset.metainfo
    # mmdet's ConcatDataset has a list where its data sets differ.
    return metainfo[0] if isinstance(metainfo, list) else metainfo


class _Plan(NamedTuple):
    """How many samples of each source each batch of a rank has.

    Args:
        length: Batches of an epoch.
        counts: (P, S) int64, of each batch; they repeat after P batches.
        starts: (P + 1, S) int64, samples before each batch.
    """

    length: int
    counts: np.ndarray
    starts: np.ndarray

    def start(self, batch: int | np.ndarray) -> np.ndarray:
        """Samples of each source before a batch of the epoch, (..., S)."""
        periods, rest = np.divmod(batch, len(self.counts))
        return np.multiply.outer(periods, self.starts[-1]) + self.starts[rest]


@DATA_SAMPLERS.register_module()
class MultiSourceSampler(Sampler):
    """Draws every batch from several sources in a fixed ratio.

    ::

        source_ratio=[2, 1, 1], batch_size=4, two ranks

                  batch 0        batch 1
        rank 0   a a b c        a a b c     an epoch ends when source a,
        rank 1   a a b c        a a b c     the epoch source, is through

    *Ratio.* Batch ``k`` of every rank holds the same number of samples of
    each source. Where the ratio does not divide the batch size the counts
    change from batch to batch by the largest remainder, carried along, so
    that over an epoch they follow the ratio to within one sample.

    *Batch size.* That of the data loader, which
    :class:`MultiSourceBatchSampler` hands on::

        train_dataloader = dict(
            batch_size=4,
            sampler=dict(
                type='mmdet_clim.MultiSourceSampler', source_ratio=[2, 1, 1]),
            batch_sampler=dict(type='mmdet_clim.MultiSourceBatchSampler'),
            ...)

    *Epochs* are finite and of the same length on every rank: one pass of
    ``epoch_source`` (its last batch is filled from its start), or
    ``epoch_length`` batches. The other sources go on where the epoch before
    stopped, so all their samples are seen before one comes again.

    *Resuming.* The order depends on ``seed`` and the iteration alone:
    :meth:`start_at` goes to any of them, without a look at what comes before
    it. What is drawn is a :class:`~mmdet_clim.datasets.draws.Draw`, which
    makes the sample depend on nothing else either.

    *Ranks* draw disjoint parts of one common order.

    *Aspect grouping*: a batch holds only wide (width >= height) or only tall
    images as far as the sources have them, on all ranks alike, known from
    :func:`~mmdet_clim.datasets.draws.image_orientations`, without opening
    images.
    What is left over at the end of an epoch, or of 1,024 batches of it,
    forms mixed batches; a source that lacks a group gives what it has.

    *Memory* does not grow with a source of more than a million samples: its
    order is computed where it is asked for, see
    :class:`~mmdet_clim.datasets.pass_order.KeyedPermutation`.

    Args:
        dataset (Dataset): With ``cumulative_sizes``, such as
            :class:`MultiSourceDataset`; any other is one source.
        batch_size (int, optional): Samples per batch of one rank. None with
            a :class:`MultiSourceBatchSampler`.
        source_ratio (Sequence[float], optional): The share of each source,
            in any unit. May be left out for one source.
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
                 batch_size: int | None = None,
                 source_ratio: Sequence[float] | None = None,
                 shuffle: bool = True,
                 seed: int | None = None,
                 aspect_grouping: bool = False,
                 epoch_source: int = 0,
                 epoch_length: int | None = None) -> None:
        if hasattr(dataset, 'full_init'):
            dataset.full_init()
        ends = list(
            getattr(dataset, 'cumulative_sizes', None) or [len(dataset)])
        if ends[-1] != len(dataset):
            # MMEngine has put one around it that is only shorter.
            raise ValueError(
                f'dataset: expected all {ends[-1]} samples of the sources, '
                f'got {len(dataset)}; instead of '
                'train_dataloader.num_batch_per_epoch, set '
                'train_dataloader.sampler.epoch_length')
        sizes = [end - start for start, end in zip([0, *ends], ends)]
        if source_ratio is None and len(sizes) == 1:
            source_ratio = [1]
        self._shares = _shares(source_ratio, len(sizes))
        if not 0 <= epoch_source < len(sizes):
            raise ValueError(
                f'epoch_source: expected a source of 0 to {len(sizes) - 1}, '
                f'got {epoch_source}')
        check_whole(epoch_length=epoch_length)
        self.dataset = dataset
        self.source_ratio = tuple(source_ratio)
        self.shuffle = shuffle
        self.rank, self.world_size = get_dist_info()
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        self._first_batch = 0
        self._sizes = sizes
        self._offsets = [0, *ends[:-1]]
        self._epoch_source = epoch_source
        self._epoch_length = epoch_length
        self._is_tall = self._read_orientations() if aspect_grouping else None
        # By what they depend on, the last ones only.
        self._passes: dict[tuple, np.ndarray | KeyedPermutation] = {}
        self._grouped: dict[tuple, list[np.ndarray]] = {}
        self._batch_size: int | None = None
        if batch_size is not None:
            self.batch_size = batch_size
        if isinstance(dataset, DrawnSamples):
            dataset.sampler = self

    @property
    def batch_size(self) -> int | None:
        """Samples per batch of one rank; None until it is known."""
        return self._batch_size

    @batch_size.setter
    def batch_size(self, batch_size: int) -> None:
        check_whole(batch_size=batch_size)
        self._batch_size = batch_size
        self._known_plan = self._make_plan()
        self._grouped.clear()

    @property
    def _plan(self) -> _Plan:
        if self._batch_size is None:
            raise ValueError(
                'batch_size: MultiSourceSampler expects that of the data '
                'loader, got none; add batch_sampler=dict(type='
                "'mmdet_clim.MultiSourceBatchSampler') to train_dataloader")
        return self._known_plan

    @property
    def batches_per_epoch(self) -> int:
        """Batches of each rank in an epoch."""
        return self._plan.length

    def _make_plan(self) -> _Plan:
        """Samples of each source in each batch of an epoch of one rank."""
        # In units of which a sample has `unit`, all numbers are whole.
        unit = sum(self._shares)
        due = [self._batch_size * share for share in self._shares]
        source = self._epoch_source
        wanted = math.ceil(self._sizes[source] / self.world_size)
        length = self._epoch_length or math.ceil(wanted * unit / due[source])
        if length > LONGEST_EPOCH:
            raise ValueError(
                f'source_ratio: with {self.source_ratio}, one pass over '
                f'source {source}, the epoch_source, takes more than '
                f'{LONGEST_EPOCH} batches; expected a larger share of it, '
                'another epoch_source, or an epoch_length')
        carried = [0] * len(due)
        counts: list[list[int]] = []
        met = [False] * len(due)
        while len(counts) <= length and (not all(met) or any(carried)
                                         and len(counts) < LONGEST_PERIOD):
            owed = [d + c for d, c in zip(due, carried)]
            count = [max(o // unit, 0) for o in owed]
            by_remainder = sorted(
                range(len(owed)), key=lambda s: count[s] * unit - owed[s])
            for s in by_remainder[:self._batch_size - sum(count)]:
                count[s] += 1
            carried = [o - c * unit for o, c in zip(owed, count)]
            counts.append(count)
            met = [m or c > 0 for m, c in zip(met, count)]
        table = np.array(counts, dtype=np.int64)
        starts = np.concatenate([np.zeros_like(table[:1]), table.cumsum(0)])
        if self._epoch_length is None:
            periods, rest = divmod(wanted - 1, int(starts[-1, source]))
            last = int(np.searchsorted(starts[1:, source], rest + 1))
            length = periods * len(table) + last + 1
        return _Plan(length, table, starts)

    def _read_orientations(self) -> np.ndarray:
        """True where an image is taller than wide, by global index."""
        told = np.concatenate([*image_orientations(self.dataset)])
        is_tall = told > 0
        unknown = np.count_nonzero(told < 0)
        if unknown:
            print_log(
                f'aspect_grouping: {unknown} of {len(is_tall)} samples have '
                "no 'height' and 'width'; they count as wide",
                logger='current',
                level=logging.WARNING)
        return is_tall

    def _pass(self, source: int, number: int, start: int,
              stop: int) -> np.ndarray:
        """Global indices of a source, a part of those of one pass."""
        size, offset = self._sizes[source], self._offsets[source]
        if not self.shuffle:
            return np.arange(offset + start, offset + stop)
        key = self.seed, source, number
        if key not in self._passes:
            _keep(self._passes, key,
                  pass_order(offset, size, seed_sequence('order', *key)),
                  2 * len(self._sizes))
        return self._passes[key][start:stop]

    def _drawn(self, source: int, epoch: int, start: int,
               stop: int) -> np.ndarray:
        """What all ranks together draw of a source in a part of an epoch.

        Args:
            source, epoch: Of which.
            start, stop (int): The part, in samples of this source.

        Returns:
            ndarray: Global indices, (stop - start, ) int64.
        """
        # The epoch source starts afresh in each epoch.
        afresh = self._epoch_length is None and source == self._epoch_source
        if not afresh:
            plan = self._plan
            before = epoch * self.world_size * int(
                plan.start(plan.length)[source])
            start, stop = start + before, stop + before
        parts = [np.empty(0, dtype=np.int64)]
        while start < stop:
            number, first = divmod(start, self._sizes[source])
            last = min(first + stop - start, self._sizes[source])
            parts.append(
                self._pass(source, epoch if afresh else number, first, last))
            start += last - first
        return np.concatenate(parts)

    def _global_batch(self, epoch: int, batch: int) -> list[list[int]]:
        """The indices of all ranks by source."""
        starts = self._starts(batch)
        ends = self._starts(batch + 1)
        if self._is_tall is None:
            return [
                self._drawn(source, epoch, *span).tolist()
                for source, span in enumerate(zip(starts, ends))
            ]
        first = batch - batch % GROUPED_BATCHES
        key = self.seed, epoch, first
        if key not in self._grouped:
            last = min(first + GROUPED_BATCHES, self.batches_per_epoch)
            edges = self._starts(np.arange(first, last + 1))
            drawn = [
                self._drawn(source, epoch, *span)
                for source, span in enumerate(zip(edges[0], edges[-1]))
            ]
            _keep(self._grouped, key,
                  _group_batches(drawn, self._is_tall, edges), 2)
        before = self._starts(first)
        return [
            indices[start - offset:end - offset].tolist() for indices, start,
            end, offset in zip(self._grouped[key], starts, ends, before)
        ]

    def _starts(self, batch: int | np.ndarray) -> list:
        """Samples of each source, of all ranks, before batches of an epoch."""
        return (self._plan.start(batch) * self.world_size).tolist()

    def draws(self, iteration: int) -> list[Draw]:
        """What this rank draws in an iteration, counted from the start."""
        batch: list[int] = []
        for indices in self._global_batch(
                *divmod(iteration, self.batches_per_epoch)):
            count = len(indices) // self.world_size
            batch += indices[self.rank * count:(self.rank + 1) * count]
        return [
            Draw(index, self.seed, self.rank, iteration, slot, len(batch))
            for slot, index in enumerate(batch)
        ]

    def next_of_stream(self, iteration: int, workers: int) -> int:
        """The next iteration that the worker of this one draws."""
        length = self.batches_per_epoch
        epoch, batch = divmod(iteration, length)
        if batch + workers < length:
            return iteration + workers
        return (epoch + 1) * length + batch % workers

    def past_of_stream(self, source: int, iteration: int, workers: int,
                       count: int) -> list[Draw]:
        """Draws of a source by the worker of an iteration before it.

        Args:
            workers (int): Of each rank.

        Returns:
            list[Draw]: The last ones, oldest first.
        """
        length = self.batches_per_epoch
        epoch, batch = divmod(iteration, length)
        offset = self._offsets[source]
        end = offset + self._sizes[source]
        found: deque[Draw] = deque()
        while len(found) < count:
            batch -= workers
            if batch < 0:
                if epoch == 0:
                    break
                # The last batch of the same remainder in the epoch before.
                epoch -= 1
                batch %= workers
                batch += (length - 1 - batch) // workers * workers
            draws = self.draws(epoch * length + batch)
            found.extendleft(d for d in reversed(draws) if offset <= d < end)
        return list(found)[max(len(found) - count, 0):]

    def stream_place(self, source: int, draw: Draw,
                     workers: int) -> StreamPlace:
        """Where a draw is among those of a source by the same worker.

        Args:
            draw (Draw): One of this rank.
            workers (int): Of each rank.
        """
        length = self.batches_per_epoch
        epoch, batch = divmod(draw.iteration, length)
        worker = batch % workers
        counts = self._plan.counts
        # What a worker draws repeats after so many of its batches.
        period = len(counts) // math.gcd(len(counts), workers)
        own = (worker + workers * np.arange(period)) % len(counts)
        starts = np.concatenate([[0], counts[own, source].cumsum()])

        def before(end: int) -> int:
            periods, rest = divmod(-(-(end - worker) // workers), period)
            return int(periods * starts[-1] + starts[rest])

        inside = draw.slot - int(counts[batch % len(counts), :source].sum())
        return StreamPlace(source, self.rank * workers + worker,
                           self.world_size * workers,
                           epoch * before(length) + before(batch) + inside)

    def batches(self) -> Iterator[list[Draw]]:
        """The batches of this rank to the end of the epoch."""
        start, self._first_batch = self._first_batch, 0
        first = self.epoch * self.batches_per_epoch
        for batch in range(start, self.batches_per_epoch):
            yield self.draws(first + batch)

    def __iter__(self) -> Iterator[Draw]:
        """Global indices of this rank, batch after batch."""
        for batch in self.batches():
            yield from batch

    def __len__(self) -> int:
        """Samples that this rank draws in an epoch."""
        return self.batches_per_epoch * self.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, as MMEngine's loops do before each one."""
        self.epoch = epoch

    def start_at(self, iteration: int) -> None:
        """Let the next pass begin with the batch of an iteration."""
        self.epoch, self._first_batch = divmod(iteration,
                                               self.batches_per_epoch)


@DATA_SAMPLERS.register_module()
class MultiSourceBatchSampler(Sampler):
    """The batches of a ``MultiSourceSampler``, as large as the loader's.

    Args:
        sampler (MultiSourceSampler): Whose batches.
        batch_size (int): ``train_dataloader.batch_size``, which MMEngine
            gives to batch samplers.

    Raises:
        ValueError: If the sampler is another one, or has another batch size.
    """

    def __init__(self, sampler: MultiSourceSampler, batch_size: int) -> None:
        if not isinstance(sampler, MultiSourceSampler):
            raise ValueError(
                'train_dataloader.sampler: MultiSourceBatchSampler expects '
                f'mmdet_clim.MultiSourceSampler, got {type(sampler).__name__}')
        if sampler.batch_size not in (None, batch_size):
            raise ValueError(
                batch_size_contradiction(batch_size, sampler.batch_size))
        if sampler.batch_size is None:
            sampler.batch_size = batch_size
        self.sampler = sampler
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[list[Draw]]:
        """Indices of this rank, by batch."""
        return self.sampler.batches()

    def __len__(self) -> int:
        """Batches of this rank in an epoch."""
        return self.sampler.batches_per_epoch


def _shares(ratio: Sequence[float] | None, sources: int) -> list[int]:
    """The ratio in whole numbers.

    Raises:
        ValueError: If it is not one positive number for each source.
    """
    if (not isinstance(ratio, Sequence) or isinstance(ratio, str)
            or len(ratio) != sources):
        raise ValueError(
            f'source_ratio: expected one number for each of {sources} '
            f'sources, got {ratio}')
    if not all(isinstance(r, Real) and 0 < r < math.inf for r in ratio):
        raise ValueError(
            f'source_ratio: expected positive numbers, got {ratio}')
    shares = [Fraction(r) for r in ratio]
    if min(shares) < sum(shares) * Fraction(SMALLEST_SHARE):
        raise ValueError(
            'source_ratio: expected a share of at least one in a million for '
            f'each source, got {ratio}')
    # A tenth as it is meant, and not the nearest double.
    shares = [(share / sum(shares)).limit_denominator(10**7)
              for share in shares]
    common = math.lcm(*(share.denominator for share in shares))
    return [int(share * common) for share in shares]


def _keep(cache: dict, key: tuple, value, count: int) -> None:
    """Put a value into a cache of the last ones."""
    while len(cache) >= count:
        cache.pop(next(iter(cache)))
    cache[key] = value


def _group_batches(drawn: Sequence[np.ndarray], is_tall: np.ndarray,
                   edges: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """Put what is drawn in an order of batches of one orientation.

    Args:
        drawn (Sequence[ndarray]): Of each source, its indices in the order
            in which they were drawn.
        is_tall (ndarray): By global index, bool.
        edges (Sequence[Sequence[int]]): Of each batch, and behind the last
            one, the number of samples of each source before it.

    Returns:
        list[ndarray]: The same indices; those of a batch have one
        orientation as far as possible.
    """
    waiting, orders = [], []
    for indices in drawn:
        tall = is_tall[indices]
        waiting.append((np.flatnonzero(~tall), np.flatnonzero(tall)))
        orders.append(np.empty(len(indices), dtype=np.int64))
    taken = [[0, 0] for _ in drawn]
    # The source with the most samples says which group comes next: that of
    # its first waiting sample, unless too few of that group are left.
    lead = max(range(len(drawn)), key=lambda s: len(drawn[s]))
    for starts, ends in zip(edges, edges[1:]):
        left = [len(w) - t for w, t in zip(waiting[lead], taken[lead])]
        groups = sorted((g for g in (0, 1) if left[g]),
                        key=lambda g: waiting[lead][g][taken[lead][g]])
        full = [g for g in groups if left[g] >= ends[lead] - starts[lead]]
        group = (full or groups or [0])[0]
        for source, order in enumerate(orders):
            place = starts[source] - edges[0][source]
            need = ends[source] - starts[source]
            for g in (group, 1 - group):
                first = taken[source][g]
                found = waiting[source][g][first:first + need]
                order[place:place + len(found)] = found
                taken[source][g] += len(found)
                place += len(found)
                need -= len(found)
    return [indices[order] for indices, order in zip(drawn, orders)]
