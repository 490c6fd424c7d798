# Licensed under the Apache License, Version 2.0.
"""The captioned images of a source as an Arrow table, mapped into memory.

A source is read and checked once; what is left of it is a table beside it
(:func:`~mmdet_clim.datasets.made_once.made_once`) that opens in milliseconds
and that all data sets, workers and ranks of a machine share. It knows nothing
of a vocabulary or of the folder of the images: tags stand in it by number,
with their names at its end, and paths as the source has them.
"""
import hashlib
import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from mmengine.fileio import join_path

from mmdet_clim_cli.mistakes import one_line

from .caption_sources import (
    SHARD_KEYS,
    SIDES,
    column_samples,
    json_line_samples,
    json_samples,
    shard_samples,
)
from .columnar_files import parquet_images
from .draws import orientation
from .json_checks import (
    typed_id,
    typed_list,
    typed_side,
    typed_value,
    wrong_value,
)
from .made_once import checked_once, made_once
from .rows import Rows
from .text_files import clean_captions, is_text

#: What reads each kind of source, by its suffix.
READERS: dict[str, Callable[[str], Iterator[dict]]] = {
    '.json': json_samples,
    '.jsonl': json_line_samples,
    '.tar': shard_samples,
    '.parquet': column_samples,
    '.arrow': column_samples,
}
# Sizes that the source does not tell are 0, and places of images -1.
_SCHEMA = pa.schema([
    ('file_name', pa.string()),
    ('id', pa.int64()),
    ('own_id', pa.bool_()),
    ('height', pa.int32()),
    ('width', pa.int32()),
    ('is_tall', pa.int8()),
    ('captions', pa.list_(pa.string())),
    ('tags', pa.list_(pa.int32())),
    ('shard_path', pa.string()),
    ('shard_offset', pa.int64()),
    ('shard_size', pa.int64()),
])
COLUMNS = tuple(_SCHEMA.names)
_CAPTIONS = _SCHEMA.names.index('captions')
# A batch of a table ends with so many rows, or characters of captions.
_BATCH_ROWS, _BATCH_TEXT = 1 << 14, 1 << 26
_FACTS = b'facts'


@dataclass
class SourceFacts:
    """What a source held, of which some may have been left out.

    Args:
        seen (int): Images.
        dropped (Counter): Images and captions that were left out, by reason.
        tags (dict[str, int]): Images by tag, in the order of their numbers.
    """

    seen: int = 0
    dropped: Counter = field(default_factory=Counter)
    tags: dict[str, int] = field(default_factory=Counter)


def image_key(path: str) -> int:
    """A number for an image that holds in every source of a run.

    The ids of two files both count from 1 or so, while a caption belongs to
    a region where both are of one image. The path says so: it differs
    between two images, and is the same where two sources read one image.

    Args:
        path (str): Where the image is; within a shard, the shard and the
            member.

    Returns:
        int: 63 bits of a digest of the path.
    """
    data = path.encode('utf-8', 'surrogatepass')
    digest = hashlib.blake2b(data, digest_size=8).digest()
    return int.from_bytes(digest, 'big') >> 1


class SampleCleaner:
    """Checks raw samples of one source and counts what it leaves out.

    Called with a raw sample, returns a row of the table, its values in the
    order of ``_SCHEMA``, or None where the sample has no caption.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.facts = SourceFacts()
        #: The number of each tag.
        self.numbers: dict[str, int] = {}

    def __call__(self, raw: Mapping) -> tuple | None:
        facts = self.facts
        facts.seen += 1
        if 'problem' in raw:
            facts.dropped[raw['problem']] += 1
            return None
        where = f"{self.path}: {raw.get('where', f'image {facts.seen}')}"
        name = typed_value(raw, 'file_name', str, where)
        if not name or not is_text(name):
            raise wrong_value(where, 'file_name', name, 'the path of an image')
        image_id = typed_id(raw, 'id', where)
        sides = [typed_side(raw, key, where) for key in SIDES]
        captions = typed_list(raw, 'captions', str, where)
        kept = clean_captions(captions, facts.dropped)
        tags = []
        for tag in dict.fromkeys(typed_list(raw, 'tags', str, where)):
            tags.append(self.numbers.setdefault(tag, len(self.numbers)))
            facts.tags[tag] += 1
        place: Sequence = (None, -1, -1)
        if 'shard_path' in raw:
            place = [
                typed_value(raw, key, kind, where)
                for key, kind in SHARD_KEYS.items()
            ]
            if not is_text(place[0]):
                raise wrong_value(where, 'shard_path', place[0],
                                  'the path of a shard')
        if not kept:
            facts.dropped['images without a caption'] += 1
            return None
        return (name, image_id, raw['own_id'], *sides, orientation(*sides),
                kept, tags, *place)


def _record_batch(rows: Sequence[tuple]) -> pa.RecordBatch:
    """Rows, their values in the order of the columns, as Arrow has them."""
    columns = zip(*rows) if rows else [()] * len(_SCHEMA)
    return pa.record_batch([
        pa.array(column, field.type)
        for column, field in zip(columns, _SCHEMA)
    ], _SCHEMA)


def _write_table(source: str, raw: Iterable[dict], out: Path) -> None:
    """Write the table of a source.

    Args:
        out (Path): The table. The facts are metadata of its last batch,
            which has no row.
    """
    clean = SampleCleaner(source)
    kept = 0

    def write(rows: list[tuple]) -> None:
        nonlocal kept
        kept += len(rows)
        writer.write_batch(_record_batch(rows))

    with pa.OSFile(str(out), 'wb') as file, pa.ipc.new_file(file,
                                                            _SCHEMA) as writer:
        rows: list[tuple] = []
        text = 0
        for row in filter(None, map(clean, raw)):
            rows.append(row)
            text += sum(map(len, row[_CAPTIONS]))
            if len(rows) == _BATCH_ROWS or text > _BATCH_TEXT:
                write(rows)
                rows, text = [], 0
        write(rows)
        if not kept:
            raise ValueError(
                f'ann_file={source!r}: expected at least one image with a '
                f'caption, got none among {clean.facts.seen} images')
        writer.write_batch(
            _record_batch([]),
            custom_metadata={
                _FACTS: json.dumps([*vars(clean.facts).values()])
            })


def make_table(source: str) -> str:
    """The table of a source, which is made if there is none.

    Args:
        source (str): A file of one of :data:`READERS`.

    Returns:
        str: The file of the table.

    Raises:
        ValueError: If the source is of no such kind, a value in it is wrong,
            or no image has a caption.
    """
    read = READERS.get(Path(source).suffix)
    if read is None:
        raise ValueError(
            f'ann_file={source!r}: expected .json (COCO captions or a list), '
            '.jsonl (JSON lines), .tar (a webdataset shard), .parquet, '
            '.arrow, or the folder of a Hugging Face dataset')
    return str(
        made_once(source, 'captions.arrow',
                  lambda out: _write_table(source, read(source), out)))


def _check(file: str) -> None:
    """Raise if a table is not as :func:`make_table` writes it.

    It lies beside data that may be a stranger's, and pyarrow does not look
    whether places are within the file. A mapping would have all of it in
    memory; this has a batch at a time.
    """
    with pa.OSFile(file) as opened, pa.ipc.open_file(opened) as reader:
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            if batch.schema != _SCHEMA:
                raise ValueError(f'columns {batch.schema.names}')
            batch.validate(full=True)


class SourceTable(Rows):
    """The table of one source, mapped: it pickles as the paths of its files.

    Args:
        file (str): Its table; see :func:`make_table`.
        folder (str): Where the files are that a JSON names.
        first_id (int): Added to the ids of images that have none of their
            own.
        classes (Sequence[str]): The vocabulary of the tags.
        rows (str, optional): A ``.npy`` of the rows that are left.
    """

    def __init__(self,
                 source: str,
                 file: str,
                 folder: str = '',
                 first_id: int = 0,
                 classes: Sequence[str] = (),
                 rows: str | None = None) -> None:
        self._arguments = source, file, folder, first_id, classes, rows
        self.source = source
        self.folder = folder
        self.first_id = first_id
        try:
            # The mapping lives as long as a batch of it.
            reader = pa.ipc.open_file(pa.memory_map(file))
            last = reader.num_record_batches - 1
            self._batches = [reader.get_batch(n) for n in range(last)]
            checked_once(file, lambda: _check(file))
            facts = reader.get_batch_with_custom_metadata(last).custom_metadata
            self.facts = SourceFacts(*json.loads(facts[_FACTS]))
            self._ends = list(accumulate(map(len, self._batches)))
            super().__init__(self._ends[-1])
            if rows is not None:
                file = rows
                self.index = np.load(file, mmap_mode='r')
                checked_once(file, self._check_rows)
        except (pa.ArrowException, OSError, ValueError, TypeError, KeyError,
                IndexError) as error:
            raise ValueError(
                f'{file}: the cached table of {source!r} is damaged '
                f'({type(error).__name__}: {one_line(error)}); remove it, and '
                'it is made again') from error
        index = {name: number for number, name in enumerate(classes)}
        #: The class of each tag by its number, -1 where it is none.
        self.class_of = np.array(
            [index.get(tag, -1) for tag in self.facts.tags], dtype=np.int32)
        self._shard: str | None = None

    def _check_rows(self) -> None:
        """Raise if they are not rows of the table, in ascending order."""
        rows: Any = self.index
        if rows.dtype != np.int64 or rows.ndim != 1 or len(rows) and not (
                rows[0] >= 0 and rows[-1] < self._ends[-1] and
            (rows[1:] > rows[:-1]).all()):
            raise ValueError('no ascending rows')

    def __reduce__(self) -> tuple:
        return type(self), self._arguments

    def row(self, number: int) -> dict:
        """A row as a sample; see ``ImageTextDataset``."""
        place = bisect_right(self._ends, number)
        batch = self._batches[place]
        found, = batch.slice(number - self._ends[place] + len(batch),
                             1).to_pylist()
        sample = dict(
            img_path=found['file_name'],
            img_id=found['id'] + (not found['own_id']) * self.first_id,
            captions=found['captions'],
            tags=sorted(c for c in self.class_of[found['tags']].tolist()
                        if c >= 0))
        for key in ('height', 'width'):
            if found[key]:
                sample[key] = found[key]
        if found['shard_offset'] >= 0:
            sample.update((key, found[key]) for key in SHARD_KEYS)
        self._complete_paths(sample)
        sample['image_key'] = image_key(sample['img_path'])
        return sample

    def _complete_paths(self, sample: dict) -> None:
        """Paths as they are opened, of those that the source has."""
        if 'shard_path' in sample and not sample['shard_path']:
            # The source holds the image itself.
            if self._shard is None:
                self._shard = parquet_images(self.source) if \
                    self.source.endswith('.parquet') else self.source
            sample['shard_path'] = self._shard
            sample['img_path'] = f"{self.source}/{sample['img_path']}"
            return
        for key in {'img_path', 'shard_path'} & set(sample):
            sample[key] = join_path(self.folder, sample[key])

    def all_orientations(self) -> Iterator[np.ndarray]:
        for batch in self._batches:
            # Unlike to_numpy, it does not import pandas, which takes longer
            # than all of this.
            yield np.from_dlpack(batch.column('is_tall'))

    def filtered(self, min_size: int,
                 wanted: Sequence[bool] | None) -> 'SourceTable':
        """The table of some of the rows.

        Args:
            min_size (int): Rows with a known side shorter than this many
                pixels are left out.
            wanted (Sequence[bool], optional): By class, whether a row that
                has it as a tag stays; without it, all do.
        """
        classes = None if wanted is None else tuple(self._arguments[4])
        options = repr((min_size, wanted, classes)).encode()
        key = hashlib.sha256(options).hexdigest()[:16]

        def write(out: Path) -> None:
            with open(out, 'wb') as file:
                np.save(file, self._find_rows(min_size, wanted))

        rows = made_once(self.source, f'rows-{key}.npy', write)
        return SourceTable(*self._arguments[:-1], str(rows))

    def _find_rows(self, min_size: int,
                   wanted: Sequence[bool] | None) -> np.ndarray:
        """The numbers of the rows that a filter leaves, int64."""
        of_tag = None
        if wanted is not None:
            of_tag = np.array([*wanted, False])[self.class_of]
        found: list[np.ndarray] = []
        for end, batch in zip(self._ends, self._batches):
            keep: Any = True
            for key in ('width', 'height'):
                side = np.from_dlpack(batch.column(key))
                keep &= (side == 0) | (side >= min_size)
            if of_tag is not None:
                tags = batch.column('tags')
                before = np.concatenate([[0], of_tag[np.from_dlpack(
                    tags.values)].cumsum()])
                offsets = np.from_dlpack(tags.offsets)
                keep &= before[offsets[1:]] > before[offsets[:-1]]
            found.append(np.flatnonzero(keep) + end - len(batch))
        return np.concatenate(found)


class TableSamples(Rows):
    """The rows of several tables, one after the other."""

    def __init__(self, tables: Sequence[SourceTable]) -> None:
        self.tables = list(tables)
        self._ends = list(accumulate(map(len, self.tables)))
        super().__init__(self._ends[-1])

    def row(self, number: int) -> dict[str, Any]:
        place = bisect_right(self._ends, number)
        table = self.tables[place]
        return table[number - self._ends[place] + len(table)]

    def all_orientations(self) -> Iterator[np.ndarray]:
        for table in self.tables:
            yield from table.orientations()
