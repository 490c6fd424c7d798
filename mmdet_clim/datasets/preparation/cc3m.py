# Licensed under the Apache License, Version 2.0.
"""Conceptual Captions (CC3M): captions, sizes and LVIS tags."""
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from mmdet_clim.progress import progress

from ..coco_annotations import read_categories
from ..ov_lvis import class_name
from .captioned_images import Part, TagClasses, check_output, read_shard
from .job import file_stamp
from .ov_lvis import check_frequencies, lvis_words
from .own_captions import Entry, EntryWorker, entries_of, shards_of
from .parts import prepare_in_parts

#: What is noted of shards in the summary.
NOT_THE_ROW = ('images with another caption or URL than the row of their key '
               'has (their own was taken)')
NOT_COMPARED = ('images that got the caption of their key, with nothing to '
                'compare it with')
#: Rows between two known positions in the file.
STRIDE = 1000


@dataclass(frozen=True)
class Row:
    """One line of the TSV.

    Args:
        number (int): From 0.
        url (str): Where the image was.
    """

    number: int
    caption: str
    url: str


class RowFile:
    """CC3M's TSV, ``caption<TAB>url`` a line, read from any row on.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it has no line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offsets = array('q')
        self._near: tuple[int, list[Row]] | None = None
        position = self.count = 0
        with open(path, 'rb') as file, progress(
                f'{path.name}: check', path.stat().st_size,
                in_bytes=True) as advance:
            for line in file:
                if self.count % STRIDE == 0:
                    advance(position - (self.offsets or [0])[-1])
                    self.offsets.append(position)
                position += len(line)
                self.count += 1
        if not self.count:
            raise ValueError(f'{path}: expected lines of a caption, a tab and '
                             'a URL, got an empty file')

    def rows(self, first: int, count: int) -> Iterator[Row]:
        """Some rows, in order, without those behind the last one.

        Args:
            first (int): Number of the first row.

        Raises:
            ValueError: If a line is not a caption, a tab and a URL in UTF-8.
        """
        if first >= self.count:
            return
        with open(self.path, 'rb') as file:
            file.seek(self.offsets[first // STRIDE])
            skipped = first % STRIDE
            lines = islice(file, skipped, skipped + count)
            for number, line in enumerate(lines, first):
                yield self._parse(number, line)

    def row(self, number: int) -> Row | None:
        """One row, None if the file has no such row."""
        first = number - number % STRIDE
        # Keys stand in order, so the next row is in the same few.
        if self._near is None or self._near[0] != first:
            self._near = first, list(self.rows(first, STRIDE))
        near = self._near[1]
        return near[number - first] if number - first < len(near) else None

    def _parse(self, number: int, line: bytes) -> Row:
        """A line's parts."""
        where = f'{self.path}: line {number + 1}'
        try:
            encoding = 'utf-8' if number else 'utf-8-sig'
            text = line.decode(encoding).rstrip('\r\n')
        except UnicodeDecodeError as error:
            raise ValueError(f'{where}: expected UTF-8 ({error})') from error
        cells = text.split('\t')
        if len(cells) != 2 or '://' not in cells[1]:
            raise ValueError(f'{where}: expected a caption, a tab and a URL, '
                             f'got {text[:200]!r}')
        return Row(number, *cells)


def image_name(template: str, row: Row) -> str:
    """The file name of a row's image.

    Args:
        template (str): With ``{row}`` (from 0), ``{crc32}`` (of the URL) and
            ``{shard}`` (ten thousand rows each), and Python's formats, such
            as ``{shard:05d}/{row:09d}.jpg``.
        row (Row): The row.
    """
    return template.format(
        row=row.number,
        crc32=zlib.crc32(row.url.encode()),
        shard=row.number // 10_000)


def check_template(template: str) -> None:
    """Raise if a template of file names can not serve.

    Args:
        template (str): See :func:`image_name`.

    Raises:
        ValueError: If it has an unknown field, a bad format, or gives two
            rows the same name.
    """
    try:
        names = {
            image_name(template, Row(number, '', f'http://{number}'))
            for number in range(2)
        }
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(
            f'file_name={template!r}: expected fields {{row}}, {{crc32}} and '
            f'{{shard}} with formats of numbers, got {error!r}') from error
    if len(names) < 2:
        raise ValueError(f'file_name={template!r}: expected {{row}} or '
                         '{crc32} in it, it names every image the same')


def read_lvis_classes(path: Path) -> TagClasses:
    """The classes and words of an LVIS file.

    Args:
        path (Path): ``lvis_v1_train.json``, or the much smaller category
            info that ``prepare_ov_lvis`` writes.

    Raises:
        ValueError: If it is neither, or not LVIS v1's split.
    """
    categories = read_categories(path)
    check_frequencies(categories, str(path))
    ids = sorted(categories)
    return TagClasses(
        tuple(class_name(categories[i]['name']) for i in ids), tuple(ids),
        tuple(lvis_words(categories[i], f'{path}: category {i}') for i in ids))


@dataclass(frozen=True)
class ShardWorker:
    """Reads images of webdataset shards and the captions beside them.

    The key of an image is the number of its row only where the number of
    images in a shard is a power of ten, as img2dataset counts. So what stands
    beside an image (its text; in its JSON ``caption`` and ``url``) is
    compared with that row, and its own caption is taken. An image with
    nothing beside it gets the caption of the row, unless another of its
    shard shows that the keys are no rows.

    Args:
        rows (RowFile): The captions.
    """

    rows: RowFile
    classes: TagClasses

    def __call__(self, path: str) -> Part:
        """The part of one shard."""
        part = Part()
        bare = []
        same = other = 0
        for member, image in read_shard(path, part):
            number = _row_number(member['where'])
            row = None if number is None else self.rows.row(number)
            captions = [c for c in member['captions'] if c.strip()]
            if number is None or (row is None and not captions):
                part.drop('images whose key is not a row of the TSV',
                          member['file_name'])
                continue
            agrees = _agrees(row, captions, member['url'])
            same += agrees is True
            other += agrees is False
            if captions or agrees:
                self._add(part, member, image, number, captions
                          or [row.caption])
            elif agrees is False:
                part.drop('images whose URL is not that of their row',
                          member['file_name'])
            else:
                bare.append((member, image, row))
        for member, image, row in bare:
            if other:
                part.drop(
                    'images without a caption, whose keys are not rows of the '
                    'TSV', member['file_name'])
            else:
                self._add(part, member, image, row.number, [row.caption])
        if other:
            part.noted[NOT_THE_ROW] = other
        elif bare and not same:
            part.noted[NOT_COMPARED] = len(bare)
        return part

    def _add(self, part: Part, member: dict, image: bytes, number: int,
             captions: list[str]) -> None:
        part.add(image, member, captions, self.classes.find(captions), number)


def _agrees(row: Row | None, captions: Sequence[str], url: Any) -> bool | None:
    """Whether what stands beside an image is that of a row, if anything is."""
    if row is None:
        return False
    if isinstance(url, str) and url:
        return url == row.url
    if captions:
        return _plain(row.caption) in map(_plain, captions)
    return None


def _plain(caption: str) -> str:
    """A caption without regard of blanks."""
    return ' '.join(caption.split())


def _row_number(key: str) -> int | None:
    """The row that a key within a shard stands for, None if it is none."""
    name = key.rpartition('/')[2]
    # No number of so many digits is a row, and Python reads none of 4300.
    return int(name) if name.isascii() and name.isdigit() \
        and len(name) < 19 else None


def prepare_cc3m(tsv: Path,
                 out: Path,
                 categories: Path,
                 images: Path | None = None,
                 file_name: str = '{row}.jpg',
                 shards: str | None = None,
                 workers: int = 1,
                 overwrite: bool = False) -> tuple[dict, bool]:
    """Make a file of CC3M's images with captions, sizes and LVIS tags.

    Args:
        tsv (Path): The official file, ``caption<TAB>url`` a line.
        out (Path): The file to write, ``.jsonl`` or ``.json``, with
            ``*_summary.json`` beside it.
        categories (Path): LVIS's annotations or category info.
        images (Path, optional): The folder of the images.
        file_name (str): How they are called; see :func:`image_name`.
        shards (str, optional): Instead of ``images``: webdataset shards, a
            path with ``*``; see :class:`ShardWorker`.
        workers (int): Processes; the file does not depend on it.
        overwrite (bool): Replace a file of other origin.

    Returns:
        tuple[dict, bool]: The summary, and False if all was made before.

    Raises:
        FileExistsError: If a file of other origin is in the way.
        FileNotFoundError: If an input is missing.
        ValueError: If an input or an argument is wrong, or no image is left.
    """
    tsv, out, categories = Path(tsv), Path(out), Path(categories)
    check_output(out)
    if (images is None) == (shards is None):
        raise ValueError('expected either images or shards, got '
                         f'images={images!r}, shards={shards!r}')
    inputs = {
        str(path): file_stamp(path, of)
        for path, of in ((tsv, 'the TSV of Conceptual Captions'),
                         (categories, 'LVIS annotations or category info'))
    }
    classes = read_lvis_classes(categories)
    rows = RowFile(tsv)
    if images is not None:
        check_template(file_name)

        def read() -> Iterator[Entry]:
            for row in rows.rows(0, rows.count):
                name = image_name(file_name, row)
                yield Entry(name, (row.caption, ), id=row.number)

        source = entries_of(read, EntryWorker(classes, Path(images)),
                            f'images below {images}', rows.count)
        parameters = dict(images=str(images), file_name=file_name)
    else:
        source = shards_of(shards, ShardWorker(rows, classes))
        parameters = dict(shards=shards)
    source.inputs.update(inputs)
    return prepare_in_parts(
        'prepare_cc3m',
        out,
        f'{tsv} and {images or shards}',
        source,
        classes,
        parameters,
        workers,
        overwrite,
        rows=rows.count,
        classes_of_tags=len(classes.names))
