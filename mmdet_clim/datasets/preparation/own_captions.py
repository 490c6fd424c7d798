# Licensed under the Apache License, Version 2.0.
"""One's own captioned images: a folder, a table, JSON or shards."""
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

from mmdet_clim.progress import track

from ..caption_sources import (
    IMAGE_SUFFIXES,
    OTHER_SUFFIXES,
    json_line_samples,
    json_samples,
)
from ..json_checks import typed_id, typed_list, typed_value
from ..json_files import read_json
from ..tables import TABLES, table_rows
from ..text_files import read_lines, read_text
from ..vocabulary import Vocabulary
from .captioned_images import (
    Part,
    TagClasses,
    check_output,
    read_image,
    read_shard,
)
from .files import linked_folders
from .job import file_stamp, images_stamp
from .parts import Source, in_parts, prepare_in_parts

_JSON = {'.json': json_samples, '.jsonl': json_line_samples}
# A cell within a caption of several lines that is the name of an image, as
# rows have one that a quotation mark swallowed.
_SWALLOWED = re.compile(
    rf'(?:^|[\n,;])\s*"?[^\n,;]+(?:{"|".join(map(re.escape, IMAGE_SUFFIXES))})'
    r'"?\s*(?:$|[\n,;])', re.IGNORECASE)


@dataclass(frozen=True)
class Columns:
    """Names of a table's columns.

    Args:
        image (str): The image's path.
        caption (str): A caption; rows of one image stand one after another.
        tags (str): Class names, parted by semicolons; empty: no such column.
    """

    image: str = 'file_name'
    caption: str = 'caption'
    tags: str = ''


@dataclass(frozen=True)
class Entry:
    """An image with its captions, as a folder, a table or JSON has it.

    Args:
        file_name (str): Its path below the folder of images.
        captions (tuple[str]): As they are.
        tags (tuple[str], optional): Class names; None: found in captions.
        id (int, optional): Where the source gives one.
        text (str): Path of a text whose lines are the captions.
        problem (str): Why it is no image with captions.
    """

    file_name: str
    captions: tuple[str, ...] = ()
    tags: tuple[str, ...] | None = None
    id: int | None = None
    text: str = ''
    problem: str = ''


def own_classes(vocabulary: Vocabulary,
                synonyms: Mapping[str, Sequence[str]]) -> TagClasses:
    """One's own classes as those of tags, with ids from 1.

    Args:
        synonyms (Mapping[str, Sequence[str]]): Other words for some of them.

    Raises:
        ValueError: If they are no lists of strings, or are given for what is
            no class.
    """
    unknown = sorted(set(synonyms) - set(vocabulary.names))
    if unknown:
        raise ValueError(f'synonyms: expected classes as keys, got {unknown}')
    return TagClasses(
        vocabulary.names, tuple(range(1,
                                      len(vocabulary) + 1)),
        tuple((*of, *typed_list(synonyms, of[0], str, 'synonyms'))
              for of in vocabulary.all_phrases))


def _tags(part: Part, classes: TagClasses | None, captions: Sequence[str],
          given: Sequence[str] | None) -> list[int]:
    """Positions of the classes that are given, or else named."""
    if classes is None:
        if given:
            part.dropped['tags, as no classes are given'] += len(given)
        return []
    if given is None:
        return classes.find(captions)
    unknown = set(given) - set(classes.names)
    if unknown:
        part.dropped['tags that are not classes'] += len(unknown)
    return [classes.names.index(name) for name in set(given) - unknown]


@dataclass(frozen=True)
class EntryWorker:
    """Reads the images of entries."""

    classes: TagClasses | None
    images: Path

    def __call__(self, task: Iterable[Entry]) -> Part:
        """The part of some entries."""
        part = Part()
        for entry in task:
            problem, captions = entry.problem, entry.captions
            if entry.text and not problem:
                try:
                    lines = read_text(self.images / entry.text).split('\n')
                    captions = tuple(line for line in lines if line.strip())
                except FileNotFoundError:
                    problem = 'images without a text file'
                except OSError:
                    problem = 'images whose text file cannot be read'
                except ValueError:
                    problem = 'images whose text file is not UTF-8'
            if problem:
                part.drop(problem, entry.file_name)
                continue
            image = read_image(self.images, entry.file_name, part)
            if image is not None:
                part.add(image, dict(file_name=entry.file_name), captions,
                         _tags(part, self.classes, captions, entry.tags),
                         entry.id)
        return part


@dataclass(frozen=True)
class ShardWorker:
    """Reads images and captions of webdataset shards."""

    classes: TagClasses | None

    def __call__(self, path: str) -> Part:
        """The part of one shard."""
        part = Part()
        for member, image in read_shard(path, part):
            captions = member['captions']
            part.add(image, member, captions,
                     _tags(part, self.classes, captions, member['tags']))
        return part


def folder_images(folder: Path) -> tuple[list[Entry], str]:
    """The images below a folder, and what else looks like one.

    Args:
        folder (Path): Looked through to any depth, links to folders included.

    Returns:
        tuple[list[Entry], str]: In the order of their names, and a digest of
        all names, sizes and times of change, texts included.

    Raises:
        ValueError: If there is no image.
    """
    files: list[Entry] = []
    seen: list[str] = []

    def add(path: Path, problem: str, text: str = '') -> None:
        name = path.relative_to(folder).as_posix()
        files.append(Entry(name, text=text, problem=problem))

    def note(error: OSError) -> None:
        add(
            Path(error.filename),
            f'folders that cannot be read ({error.strerror})')

    for parent, names in linked_folders(folder, note):
        paths = [Path(parent, name) for name in names]
        texts: dict[str, Path] = {}
        # "a.txt" before "a.TXT", of which there may be both.
        for path in reversed(paths):
            if path.suffix.lower() == '.txt':
                if texts.setdefault(path.stem, path) != path:
                    add(path, 'second texts of an image')
        with_image = set()
        for path in paths:
            suffix = path.suffix.lower()
            if suffix in OTHER_SUFFIXES:
                add(path, f'images of a format that is not read ({suffix})')
            elif suffix in IMAGE_SUFFIXES and path.stem in texts:
                text = texts[path.stem].relative_to(folder)
                add(path, '', text.as_posix())
            elif suffix in IMAGE_SUFFIXES:
                add(path, 'images without a text file')
            if suffix in (*IMAGE_SUFFIXES, *OTHER_SUFFIXES):
                with_image.add(path.stem)
            elif suffix != '.txt':
                continue
            seen.append(str(path.relative_to(folder)))
        for stem, path in texts.items():
            if stem not in with_image:
                add(path, 'texts without an image')
    if not any(file.file_name.lower().endswith(IMAGE_SUFFIXES)
               for file in files):
        others = Counter(file.problem for file in files)
        raise ValueError(
            f'{folder}: expected images ({", ".join(IMAGE_SUFFIXES)}) with '
            'text files of the same names, got no image'
            f'{f"; there are {dict(others)}" if others else ""}')
    return (sorted(files, key=lambda file: file.file_name),
            images_stamp(folder, seen))


def table_entries(path: Path, columns: Columns) -> Iterator[Entry]:
    """The images of a table with a line of column names.

    Args:
        path (Path): ``.csv`` with commas or ``.tsv`` with tabs.

    Raises:
        ValueError: If a column or a cell is missing, or the file is no text.
    """
    rows = table_rows(read_lines(path), path.suffix.lower(), str(path))
    _, found = next(rows, (1, []))
    wanted = [n for n in (columns.image, columns.caption, columns.tags) if n]
    for name in wanted:
        if name not in found:
            raise ValueError(f'{path}: line 1: expected a column {name!r}, '
                             f'got {found}')
        if found.count(name) > 1:
            raise ValueError(f'{path}: line 1: expected one column {name!r}, '
                             f'got {found}')

    def checked() -> Iterator[dict]:
        for number, cells in rows:
            if len(cells) != len(found):
                raise ValueError(f'{path}: line {number}: expected '
                                 f'{len(found)} cells, got {cells}')
            row = dict(zip(found, cells))
            if not row[columns.image].strip():
                raise ValueError(
                    f'{path}: line {number}: column {columns.image!r} is '
                    'empty, expected the path of an image')
            if '\n' in row[columns.caption] and _SWALLOWED.search(
                    row[columns.caption]):
                raise ValueError(
                    f'{path}: line {number}: column {columns.caption!r} '
                    f'contains further rows, {row[columns.caption][:200]!r}; '
                    'expected a quotation mark at the start of a cell to be '
                    'doubled and the cell to be quoted: """like this"" and so '
                    'on"')
            yield row

    for name, grouped in groupby(checked(), lambda row: row[columns.image]):
        captions: list[str] = []
        tags: set[str] = set()
        for row in grouped:
            captions.append(row[columns.caption])
            if columns.tags:
                cells = row[columns.tags].split(';')
                tags.update(filter(None, map(str.strip, cells)))
        yield Entry(name, tuple(captions),
                    tuple(sorted(tags)) if columns.tags else None)


def json_entries(path: Path) -> Iterator[Entry]:
    """The images of JSON or JSON lines; see ``ImageTextDataset``.

    Args:
        path (Path): A ``.json``, in memory as a whole, or a ``.jsonl``.

    Raises:
        ValueError: If a key is missing, a value has the wrong type, or a line
            is not valid JSON.
    """
    for raw in _JSON[path.suffix.lower()](str(path)):
        where = f"{path}: {raw['where']}"
        name = typed_value(raw, 'file_name', str, where)
        if not name:
            raise ValueError(f"{where}: key 'file_name' is empty, expected "
                             'the path of an image')
        tags = raw.get('tags')
        if tags is not None:
            tags = tuple(typed_list(raw, 'tags', str, where))
        yield Entry(name, tuple(raw['captions']), tags,
                    typed_id(raw, 'id', where))


def shards_of(pattern: str, worker: Callable[[str], Part]) -> Source:
    """Webdataset shards as a source.

    Args:
        pattern (str): A path, in which ``*`` and ``?`` stand for several.
        worker (Callable[[str], Part]): Reads one of them.

    Raises:
        FileNotFoundError: If there is none.
    """
    path = Path(pattern)
    inputs = {
        str(shard): file_stamp(shard)
        for shard in sorted(path.parent.glob(path.name))
    }
    if not inputs:
        raise FileNotFoundError(f'{pattern}: no such shard')
    return Source(lambda: list(inputs), worker, dict(inputs))


def entries_of(read: Callable[[], Iterable[Entry]],
               worker: EntryWorker,
               images: str,
               total: int | None = None) -> Source:
    """Entries of a file as a source.

    Args:
        read (Callable): Gives them, each time that it is called.
        worker (EntryWorker): Reads their images.
        images (str): What messages call the images.
        total (int, optional): How many entries there are, if it is known.

    Raises:
        FileNotFoundError: If the folder of the images does not exist.
    """
    if not worker.images.is_dir():
        raise FileNotFoundError(f'{worker.images}: no such folder')
    names = (e.file_name for e in track(read(), 'images: check', total))
    return Source(lambda: in_parts(read()), worker,
                  {images: images_stamp(worker.images, names)})


def find_source(source: str, images: Path | None, columns: Columns,
                classes: TagClasses | None) -> Source:
    """Tell by its name what a source is.

    Args:
        source (str): A folder; a ``.csv``, ``.tsv``, ``.json`` or ``.jsonl``
            file; or ``.tar`` shards, a path with ``*``.
        images (Path, optional): The folder that the names of a file are
            below; that of the file if not given.

    Raises:
        FileNotFoundError: If there is no such source.
        ValueError: If it is none of these.
    """
    path = Path(source)
    if path.is_dir():
        files, digest = folder_images(path)
        return Source(lambda: in_parts(files), EntryWorker(classes, path),
                      {source: digest})
    suffix = path.suffix.lower()
    if suffix == '.tar':
        return shards_of(source, ShardWorker(classes))
    if suffix not in (*TABLES, *_JSON):
        raise ValueError(f'{source}: expected a folder, .csv, .tsv, .json, '
                         '.jsonl or .tar')
    stamp = file_stamp(path)
    read = partial(json_entries, path) if suffix in _JSON else partial(
        table_entries, path, columns)
    folder = path.parent if images is None else Path(images)
    found = entries_of(read, EntryWorker(classes, folder),
                       f'images of {source}')
    found.inputs[source] = stamp
    return found


def prepare_image_text(source: str,
                       out: Path,
                       vocabulary: Vocabulary | None = None,
                       synonyms: Mapping[str, Sequence[str]] | None = None,
                       images: Path | None = None,
                       columns: Columns | None = None,
                       workers: int = 1,
                       overwrite: bool = False) -> tuple[dict, bool]:
    """Make a file for ``ImageTextDataset`` of one's own captioned images.

    Args:
        source (str): See :func:`find_source`.
        out (Path): The file to write, ``.json`` or ``.jsonl``, with
            ``*_summary.json`` beside it. Its names are below the source's
            folder, or below ``images``.
        vocabulary (Vocabulary, optional): One's own classes, for the tags.
        synonyms (Mapping[str, Sequence[str]], optional): Other words for
            classes.
        images (Path, optional): The folder of the images of a file.
        workers (int): Processes; the file does not depend on it.
        overwrite (bool): Replace a file of other origin.

    Returns:
        tuple[dict, bool]: The summary, and False if all was made before.

    Raises:
        FileExistsError: If a file of other origin is in the way.
        FileNotFoundError: If an input is missing.
        ValueError: If it, a value in it or an argument is wrong, or no image
            is left.
    """
    out, columns = Path(out), columns or Columns()
    check_output(out)
    if synonyms and vocabulary is None:
        raise ValueError('synonyms: expected a vocabulary too, got none')
    classes = None if vocabulary is None else own_classes(
        vocabulary, synonyms or {})
    found = find_source(source, images, columns, classes)
    parameters = dict(
        images=images and str(images),
        columns=repr(columns),
        words=classes and classes.words)
    return prepare_in_parts('prepare_image_text', out, source, found, classes,
                            parameters, workers, overwrite)


def read_synonyms(path: Path) -> dict[str, list[str]]:
    """Read ``{"class": ["other word", ...]}``.

    Raises:
        ValueError: If it is something else, or not valid JSON.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f'{path}: expected an object of lists by class name, '
                         f'got {type(content).__name__}')
    return {key: typed_list(content, key, str, str(path)) for key in content}
