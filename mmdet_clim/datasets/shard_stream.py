# Licensed under the Apache License, Version 2.0.
"""Webdataset shards that are read in order, wherever they are."""
import hashlib
import logging
import os
import re
import subprocess
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from glob import glob
from itertools import count, groupby
from pathlib import Path
from typing import IO, Any

import fsspec
import numpy as np
from mmengine.logging import print_log

from mmdet_clim.checks import check_whole
from mmdet_clim.files import atomic_path
from mmdet_clim.registry import DATASETS
from mmdet_clim.seeds import seed_sequence

from .caption_sources import member_sample, tar_files
from .draws import DrawnSamples, StreamPlace, current_drawing
from .made_once import cache_root
from .regular_files import MAX_FILE_BYTES, open_regular
from .replacing import ReplacesUnreadable
from .source_tables import COLUMNS, SampleCleaner, image_key
from .text_files import MAX_LINE_BYTES
from .unreadable import NoReadableImageError
from .vocabulary import with_classes

#: Before a shell command that writes a shard, as webdataset has it.
PIPE = 'pipe:'
_RANGE = re.compile(r'\{(\d+)\.\.(\d+)\}')
# Blocks of a shuffle buffer that a worker keeps, for what draws earlier
# samples again.
_KEPT_BLOCKS = 2


def expanded_shards(names: str | Sequence[str]) -> list[str]:
    """The shards that patterns stand for.

    Args:
        names (str | Sequence[str]): Paths with ``*`` and ``?``; addresses
            that fsspec knows (``s3://...``); commands after ``pipe:``. In all
            of them ``{000..123}`` stands for each of these numbers.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    found: list[str] = []
    for name in [names] if isinstance(names, (str, Path)) else names:
        for one in _numbered(str(name)):
            if one.startswith(PIPE) or '://' in one:
                found.append(one)
                continue
            files = sorted(glob(one)) or [one]
            if not Path(files[0]).is_file():
                raise FileNotFoundError(f'shards={str(name)!r}: no such file: '
                                        f'{files[0]}')
            found += files
    return found


def _numbered(name: str) -> Iterator[str]:
    """A name with each number of its first range, and so on."""
    span = _RANGE.search(name)
    if span is None:
        yield name
        return
    first, last = span.groups()
    for number in range(int(first), int(last) + 1):
        yield from _numbered(f'{name[:span.start()]}{number:0{len(first)}d}'
                             f'{name[span.end():]}')


@contextmanager
def _opened(shard: str) -> Iterator[IO[bytes]]:
    """The bytes of a shard, from the start to the end."""
    if shard.startswith(PIPE):
        with subprocess.Popen(
                shard[len(PIPE):], shell=True,
                stdout=subprocess.PIPE) as process:
            output: Any = process.stdout
            try:
                yield output
                # What a tar has behind its end.
                while output.read(1 << 16):
                    pass
            finally:
                output.close()
        if process.returncode:
            raise OSError(f'{shard}: exit status {process.returncode}')
    elif '://' in shard:
        with fsspec.open(shard, 'rb') as file:
            yield file
    else:
        with open_regular(shard) as file:
            yield file


def shard_contents(shard: str) -> Iterator[dict]:
    """Raw samples of a shard in its order, each with its image.

    Args:
        shard (str): See :func:`expanded_shards`.

    Raises:
        OSError: If it cannot be opened, or ends early.
        tarfile.TarError: If it is no tar, or a broken one.
    """
    with _opened(shard) as file:
        files = tar_files(file, 'r|*')
        for key, members in groupby(files, lambda found: found[2]):
            parts: dict[str, bytes] = {}
            for tar, member, _, suffix in members:
                limit = MAX_LINE_BYTES if suffix in ('.txt', '.json') \
                    else MAX_FILE_BYTES
                if member.size <= limit:
                    parts[suffix] = tar.extractfile(member).read()
            raw = member_sample(key, parts, bytes)
            if raw is not None:
                yield raw


class _KnownCounts:
    """How many samples shards have, kept on the disk once they were read."""

    def __init__(self) -> None:
        self._counts: dict[str, int | None] = {}

    def _file(self, shard: str) -> Path:
        stamp = ''
        if os.path.isfile(shard):
            stat = os.stat(shard)
            shard, stamp = os.path.abspath(shard), \
                f'{stat.st_size} {stat.st_mtime_ns}'
        digest = hashlib.sha256(f'{shard}\0{stamp}'.encode(
            'utf-8', 'surrogateescape'))
        return cache_root() / 'streams' / digest.hexdigest()

    def get(self, shard: str) -> int | None:
        """The number of a shard, None if it is not known."""
        if self._counts.get(shard) is None:
            try:
                self._counts[shard] = int(self._file(shard).read_text())
            except (OSError, ValueError):
                return None
        return self._counts[shard]

    def put(self, shard: str, number: int) -> None:
        """Keep the number of a shard."""
        if self.get(shard) == number:
            return
        self._counts[shard] = number
        try:
            with atomic_path(self._file(shard)) as path:
                path.write_text(str(number))
        except OSError:
            # Then it is counted again by the next process.
            return


class _Lane:
    """What one worker of all ranks reads, one shard after the other.

    Args:
        dataset (ShardStreamDataset): Of which.
        seed, source (int): Of the run; and which of its sources it is.
        lane, lanes (int): Which worker, of how many.
    """

    def __init__(self, dataset: 'ShardStreamDataset', seed: int, source: int,
                 lane: int, lanes: int) -> None:
        self.dataset = dataset
        self.order = seed, source
        self.lane = lane
        self.lanes = lanes
        self._blocks: 'OrderedDict[int, list[dict]]' = OrderedDict()
        self._samples: Iterator[dict] | None = None
        self._next = 0

    def sample(self, position: int) -> dict:
        """A sample by its place in the shuffled order."""
        size = self.dataset.buffer_size
        number, place = divmod(position, size)
        if self.dataset.shuffle:
            seeds = seed_sequence('buffer', *self.order, self.lane, number)
            place = int(np.random.default_rng(seeds).permutation(size)[place])
        block = self._blocks.setdefault(number, [])
        self._blocks.move_to_end(number)
        while len(self._blocks) > _KEPT_BLOCKS:
            self._blocks.popitem(last=False)
        if place >= len(block):
            first = number * size + len(block)
            last = place
            if self._samples is None or first != self._next:
                # Coming back for the rest of it would take as long again.
                last = place if self._samples is None else size - 1
                self._samples, self._next = self._from(first), first
            while len(block) <= last:
                block.append(next(self._samples))
                self._next += 1
        return block[place]

    def _from(self, position: int) -> Iterator[dict]:
        """The samples in the order of the shards, from a place on."""
        for number in count():
            shards = self.dataset.shards_of(*self.order, number)
            seen = 0
            for shard in shards[self.lane::self.lanes]:
                known = self.dataset.counts.get(shard)
                if known is not None and known <= position:
                    position -= known
                    seen += known
                    continue
                for sample in self.dataset.contents(shard):
                    seen += 1
                    if position:
                        position -= 1
                    else:
                        yield sample
            if not seen:
                raise NoReadableImageError(
                    'shards: expected an image with a caption, got none in '
                    f'{shards[self.lane::self.lanes]}')


@DATASETS.register_module()
class ShardStreamDataset(DrawnSamples, ReplacesUnreadable):
    """Captioned images of webdataset shards, read in order.

    ::

        shards of a pass, in random order   s7 s2 s0 s5 s1 s4 | s3 ...
        worker 0 of rank 0                  s7          s1    |
        worker 1 of rank 0                     s2          s4 |
        worker 0 of rank 1                        s0          | ...
        worker 1 of rank 1                           s5       |

    For sources that are too large to be listed or too far away to be read by
    offset. Each worker of each rank reads shards of its own from the start
    to the end, pass after pass, and gives out the samples of each
    ``buffer_size`` in a row in random order. It is a source of a
    :class:`MultiSourceDataset` as any other, also for mosaics.

    What is drawn depends on the seed, the iteration and the number of ranks
    and workers alone. A resumed run goes on at the next sample: shards that
    were read to their end once have their number of samples in
    ``~/.cache/mmdet_clim/streams``, and are passed over; of the others each
    member is read again.

    A sample has ``img_bytes`` (the encoded image), ``img_path`` (a name),
    ``img_id`` and ``image_key`` (a digest of the name), ``captions``,
    ``tags``, and ``height`` and ``width`` where the shard tells.

    Members are as of a ``.tar`` in :class:`ImageTextDataset`; those of one
    key stand in a row. Of a shard that cannot be read, or ends early, the
    rest is left out with a warning; so are images without a caption.

    Args:
        shards (str | Sequence[str]): Paths with ``*``, addresses for fsspec
            (``s3://...``; what it needs for them has to be installed), or
            ``pipe:`` and a shell command that writes a shard. ``{000..123}``
            stands for each of the numbers.
        num_samples (int): What counts as a pass of it; at best about as many
            as there are.
        vocabulary: The classes of the tags, see
            :func:`~mmdet_clim.datasets.build_vocabulary`. Instead of it,
            ``metainfo=dict(classes=...)``. Without either there are no tags.
        buffer_size (int): Samples among which the order is random. Each
            worker has up to twice as many encoded images in memory.
        shuffle (bool): Whether the order is random.
        **kwargs: ``pipeline``, ``metainfo``, ``max_refetch`` and
            ``report_every`` of the other data sets.

    Raises:
        FileNotFoundError: If a shard that is a file does not exist.
        ValueError: If an argument is out of its range, or both
            ``vocabulary`` and ``metainfo['classes']`` are given.
    """

    def __init__(self,
                 shards: str | Sequence[str],
                 num_samples: int,
                 vocabulary: Any = None,
                 buffer_size: int = 1000,
                 shuffle: bool = True,
                 metainfo: Mapping | None = None,
                 **kwargs) -> None:
        check_whole(num_samples=num_samples, buffer_size=buffer_size)
        self.shards = expanded_shards(shards)
        if not self.shards:
            raise ValueError('shards: expected at least one, got none')
        self.num_samples = num_samples
        self.buffer_size = buffer_size
        self.shuffle = shuffle
        self.counts = _KnownCounts()
        metainfo, words = with_classes(metainfo, vocabulary)
        names = () if words is None else words.names
        self._classes = {name: i for i, name in enumerate(names)}
        self._asked = 0
        self._process = 0
        self._lanes: dict[tuple[int, ...], _Lane] = {}
        super().__init__(metainfo=metainfo, serialize_data=False, **kwargs)

    def __getstate__(self) -> dict:
        return dict(vars(self), _lanes={})

    def load_data_list(self) -> list:
        """Nothing: samples are known when they are read."""
        return []

    def __len__(self) -> int:
        return self.num_samples

    def image_orientations(self) -> Iterator[np.ndarray]:
        yield np.full(len(self), -1, dtype=np.int8)

    def __getitem__(self, index: int) -> Any:
        """The next sample of this worker.

        Args:
            index (int): Of a draw it means nothing. Without a draw it is
                the place in one stream of all shards.
        """
        asked, self._asked = self._asked, int(index)
        try:
            return super().__getitem__(index)
        finally:
            self._asked = asked

    def get_data_info(self, idx: int) -> dict:
        """The sample that stands for an index now, see :meth:`__getitem__`.

        Args:
            idx (int): The index that was asked for; or one behind it, where
                that one cannot be read: then the sample is as far behind.
        """
        drawing = current_drawing()
        if drawing is None:
            seed, place = 0, StreamPlace(0, 0, 1, self._asked)
        else:
            seed, place = drawing.draw.seed, drawing.stream_place()
        position = place.position + (idx - self._asked) % len(self)
        sample = self._lane(seed, *place[:3]).sample(position)
        return dict(
            sample,
            captions=list(sample['captions']),
            tags=list(sample['tags']),
            sample_idx=idx)

    def _lane(self, seed: int, source: int, lane: int, lanes: int) -> _Lane:
        if self._process != os.getpid():
            # A fork must not read the files of the process it came from.
            self._process, self._lanes = os.getpid(), {}
        if len(self.shards) < lanes:
            raise NoReadableImageError(
                f'shards: expected at least one for each of {lanes} workers '
                f'of all ranks, got {len(self.shards)}')
        key = seed, source, lane, lanes
        if key not in self._lanes:
            self._lanes[key] = _Lane(self, *key)
        return self._lanes[key]

    def shards_of(self, seed: int, source: int, number: int) -> list[str]:
        """The shards in the order of a pass.

        Args:
            seed, source (int): Of the run; and which of its sources it is.
        """
        if not self.shuffle:
            return self.shards
        seeds = seed_sequence('shards', seed, source, number)
        order = np.random.default_rng(seeds).permutation(len(self.shards))
        return [self.shards[i] for i in order]

    def contents(self, shard: str) -> Iterator[dict]:
        """The samples of a shard, in its order."""
        clean = SampleCleaner(shard)
        number = 0
        try:
            for raw in shard_contents(shard):
                row = None
                reason = f"{shard}: {raw['where']}: " + raw.get(
                    'problem', 'no caption')
                try:
                    row = clean(dict(raw, id=0))
                except ValueError as error:
                    reason = str(error)
                if row is None:
                    self.unreadable.add(reason)
                    continue
                number += 1
                yield self._as_sample(shard, row, raw['image'],
                                      list(clean.numbers))
        except Exception as error:
            # Of whatever fsspec's file systems raise.
            print_log(
                f'{shard}: skipped after {number} samples '
                f'({type(error).__name__}: {error})',
                logger='current',
                level=logging.WARNING)
            return
        self.counts.put(shard, number)

    def _as_sample(self, shard: str, row: tuple, image: bytes,
                   tags: Sequence[str]) -> dict:
        found = dict(zip(COLUMNS, row))
        path = f"{shard}/{found['file_name']}"
        key = image_key(path)
        classes = (self._classes.get(tags[t], -1) for t in found['tags'])
        sample = dict(
            img_path=path,
            img_bytes=image,
            img_id=key,
            image_key=key,
            captions=found['captions'],
            tags=sorted(c for c in classes if c >= 0))
        sample.update(
            (key, found[key]) for key in ('height', 'width') if found[key])
        return sample
