# Licensed under the Apache License, Version 2.0.
"""One's own captioned images: a folder, a table, JSON or shards."""
import csv
import hashlib
import os
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
)

from ..image_text import IMAGE_SUFFIXES, json_line_samples, json_samples
from ..json_checks import typed_list, typed_value
from ..json_files import read_json
from ..vocabulary import Vocabulary
from .captioned_images import (
    Part,
    TagClasses,
    check_output,
    find_shards,
    read_files,
    read_shard,
    shard_place,
)
from .job import file_stamp
from .parts import in_parts, prepare_in_parts

_TABLES = {'.csv': ',', '.tsv': '\t'}
_JSON = {'.json': json_samples, '.jsonl': json_line_samples}


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
    """An image with its captions, as a table or JSON has it.

    Args:
        file_name (str): Its path below the folder of images.
        captions (tuple[str]): As they are.
        tags (tuple[str], optional): Class names; None: found in captions.
        id (int, optional): Where the source gives one.
    """

    file_name: str
    captions: Tuple[str, ...]
    tags: Optional[Tuple[str, ...]] = None
    id: Optional[int] = None


def own_classes(vocabulary: Vocabulary,
                synonyms: Mapping[str, Sequence[str]]) -> TagClasses:
    """One's own classes as those of tags, with ids from 1.

    Args:
        vocabulary (Vocabulary): The class names.
        synonyms (Mapping[str, Sequence[str]]): Other words for some of them.

    Raises:
        TypeError: If the synonyms of a class are no list of strings.
        ValueError: If they are given for what is no class.
    """
    unknown = sorted(set(synonyms) - set(vocabulary.names))
    if unknown:
        raise ValueError(f'synonyms: expected classes as keys, got {unknown}')
    return TagClasses(
        vocabulary.names, tuple(range(1,
                                      len(vocabulary) + 1)),
        tuple((name, *typed_list(synonyms, name, str, 'synonyms'))
              for name in vocabulary.names))


def _tags(part: Part, classes: Optional[TagClasses], captions: Sequence[str],
          given: Optional[Sequence[str]]) -> List[int]:
    """Positions of the classes that are given, or else named."""
    if classes is None:
        if given:
            part.dropped['tags, as no classes are given'] += len(given)
        return []
    if given is None:
        return classes.find(captions)
    unknown = set(given) - set(classes.names)
    if unknown:
        part.dropped['tags that are no class'] += len(unknown)
    return [classes.names.index(name) for name in set(given) - unknown]


@dataclass(frozen=True)
class EntryWorker:
    """Reads the images of entries.

    Args:
        classes (TagClasses, optional): For the tags.
        images (Path): Their folder.
    """

    classes: Optional[TagClasses]
    images: Path

    def __call__(self, task: Iterable[Entry]) -> Part:
        """The part of some entries."""
        part = Part()
        named = ((entry.file_name, entry) for entry in task)
        for name, entry, image in read_files(self.images, named, part):
            own_id = {} if entry.id is None else dict(id=entry.id)
            part.add(
                image,
                dict(
                    own_id,
                    file_name=name,
                    captions=list(entry.captions),
                    tags=_tags(part, self.classes, entry.captions,
                               entry.tags)))
        return part


@dataclass(frozen=True)
class FolderWorker:
    """Reads images and the text files beside them.

    Args:
        classes (TagClasses, optional): For the tags.
        folder (Path): The folder.
    """

    classes: Optional[TagClasses]
    folder: Path

    def __call__(self, task: Iterable[str]) -> Part:
        """The part of some image names; a caption is a line of a text."""
        part = Part()
        named = self._captions(task, part)
        for name, captions, image in read_files(self.folder, named, part):
            part.add(
                image,
                dict(
                    file_name=name,
                    captions=captions,
                    tags=_tags(part, self.classes, captions, None)))
        return part

    def _captions(self, names: Iterable[str],
                  part: Part) -> Iterator[Tuple[str, List[str]]]:
        """Names of images that have a text, with its lines."""
        for name in names:
            try:
                text = (self.folder / name).with_suffix('.txt').read_text(
                    encoding='utf-8-sig')
            except FileNotFoundError:
                part.drop('images without a text file', name)
            except UnicodeDecodeError:
                part.drop('images whose text file is not UTF-8', name)
            else:
                yield name, [c for c in text.split('\n') if c.strip()]


@dataclass(frozen=True)
class ShardWorker:
    """Reads images and captions of webdataset shards.

    Args:
        classes (TagClasses, optional): For the tags.
    """

    classes: Optional[TagClasses]

    def __call__(self, path: str) -> Part:
        """The part of one shard."""
        part = Part()
        for member, image in read_shard(path, part):
            given = member['tags']
            if given is not None:
                given = typed_list(member, 'tags', str,
                                   f"{path}: {member['where']}")
            sample = dict(
                file_name=member['file_name'],
                captions=member['captions'],
                tags=_tags(part, self.classes, member['captions'], given))
            part.add(image, dict(sample, **shard_place(member)))
        return part


def folder_images(folder: Path) -> Tuple[List[str], str]:
    """The images below a folder.

    Args:
        folder (Path): Looked through to any depth.

    Returns:
        tuple[list[str], str]: Their paths below it, sorted, and a digest of
        all names, sizes and times of change, texts included.

    Raises:
        ValueError: If there is none.
    """
    names = []
    digest = hashlib.sha256()
    for parent, folders, files in os.walk(folder):
        folders.sort()
        for file in sorted(files):
            path = Path(parent) / file
            name = path.relative_to(folder).as_posix()
            is_image = path.suffix.lower() in IMAGE_SUFFIXES
            if is_image:
                names.append(name)
            if is_image or path.suffix == '.txt':
                digest.update(repr((name, file_stamp(path))).encode())
    if not names:
        raise ValueError(f'{folder}: expected images ({IMAGE_SUFFIXES}) with '
                         'text files of the same names, got no image')
    return sorted(names), digest.hexdigest()


def table_entries(path: Path, columns: Columns) -> Iterator[Entry]:
    """The images of a table with a line of column names.

    Args:
        path (Path): ``.csv`` with commas or ``.tsv`` with tabs, in UTF-8.
        columns (Columns): Their names.

    Raises:
        ValueError: If a column or a cell is missing.
    """
    with open(path, encoding='utf-8-sig', newline='') as file:
        reader = csv.DictReader(
            file, delimiter=_TABLES[path.suffix], strict=True)
        wanted = [
            n for n in (columns.image, columns.caption, columns.tags) if n
        ]
        found = reader.fieldnames or []
        for name in wanted:
            if name not in found:
                raise ValueError(f'{path}: line 1: expected a column '
                                 f'{name!r}, got {list(found)}')

        def checked() -> Iterator[dict]:
            try:
                for row in reader:
                    # DictReader's way to say: too few, too many.
                    if None in row.values() or None in row:
                        raise ValueError(
                            f'{path}: line {reader.line_num}: expected '
                            f'{len(found)} cells, got {list(row.values())}')
                    if not row[columns.image].strip():
                        raise ValueError(
                            f'{path}: line {reader.line_num}: column '
                            f'{columns.image!r} is empty, expected the path '
                            'of an image')
                    yield row
            except csv.Error as error:
                raise ValueError(
                    f'{path}: after line {reader.line_num}: {error}'
                ) from error

        for name, rows in groupby(checked(), lambda row: row[columns.image]):
            captions, tags = [], set()
            for row in rows:
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
        TypeError: If a value has the wrong type.
        ValueError: If a key is missing or a line is not valid JSON.
    """
    for raw in _JSON[path.suffix](str(path), 0):
        where = f"{path}: {raw['where']}"
        name = typed_value(raw, 'file_name', str, where)
        if not name:
            raise ValueError(f"{where}: key 'file_name' is empty, expected "
                             'the path of an image')
        tags = raw.get('tags')
        if tags is not None:
            tags = tuple(typed_list(raw, 'tags', str, where))
        yield Entry(name, tuple(raw['captions']), tags,
                    typed_value(raw, 'id', int, where))


@dataclass(frozen=True)
class Source:
    """What to read and how.

    Args:
        tasks (Callable): Gives the parts of the work, in a fixed order.
        worker (Callable): Does one.
        inputs (dict): See :class:`~.job.Job`.
    """

    tasks: Callable[[], Iterable[Any]]
    worker: Callable[[Any], Part]
    inputs: Dict[str, Any]


def find_source(source: str, images: Optional[Path], columns: Columns,
                classes: Optional[TagClasses]) -> Source:
    """Tell by its name what a source is.

    Args:
        source (str): A folder; a ``.csv``, ``.tsv``, ``.json`` or ``.jsonl``
            file; or ``.tar`` shards, a path with ``*``.
        images (Path, optional): The folder that the names of a file are
            below; that of the file if not given.
        columns (Columns): Of a table.
        classes (TagClasses, optional): For the tags.

    Raises:
        FileNotFoundError: If there is no such source.
        ValueError: If it is none of these.
    """
    path = Path(source)
    if path.is_dir():
        names, digest = folder_images(path)
        return Source(lambda: in_parts(names), FolderWorker(classes, path),
                      {source: digest})
    if path.suffix == '.tar':
        shards = [str(shard) for shard in find_shards(source)]
        return Source(lambda: shards, ShardWorker(classes),
                      {shard: file_stamp(Path(shard))
                       for shard in shards})
    if path.suffix not in (*_TABLES, *_JSON):
        raise ValueError(f'{source}: expected a folder, .csv, .tsv, .json, '
                         '.jsonl or .tar')
    if not path.is_file():
        raise FileNotFoundError(f'{source}: no such file')
    folder = path.parent if images is None else Path(images)
    if not folder.is_dir():
        raise FileNotFoundError(f'{folder}: no such folder')

    def tasks() -> Iterator[Tuple[Entry, ...]]:
        if path.suffix in _JSON:
            return in_parts(json_entries(path))
        return in_parts(table_entries(path, columns))

    return Source(tasks, EntryWorker(classes, folder),
                  {source: file_stamp(path)})


def prepare_image_text(source: str,
                       out: Path,
                       vocabulary: Optional[Vocabulary] = None,
                       synonyms: Optional[Mapping[str, Sequence[str]]] = None,
                       images: Optional[Path] = None,
                       columns: Optional[Columns] = None,
                       workers: int = 1,
                       overwrite: bool = False) -> Tuple[Dict, bool]:
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
        columns (Columns, optional): Of a table.
        workers (int): Processes; the file does not depend on it.
        overwrite (bool): Replace a file of other origin.

    Returns:
        tuple[dict, bool]: The summary, and False if all was made before.

    Raises:
        FileExistsError: If a file of other origin is in the way.
        FileNotFoundError: If an input is missing.
        TypeError: If a value in it has the wrong type.
        ValueError: If it or an argument is wrong, or no image is left.
    """
    out = Path(out)
    check_output(out)
    columns = columns or Columns()
    if synonyms and vocabulary is None:
        raise ValueError('synonyms: expected classes beside them, got none')
    classes = None if vocabulary is None else own_classes(
        vocabulary, synonyms or {})
    found = find_source(source, images, columns, classes)
    parameters = dict(
        images=images and str(images),
        columns=repr(columns),
        words=classes and classes.words)
    return prepare_in_parts('prepare_image_text', out, source, found.tasks,
                            found.worker, classes, found.inputs, parameters,
                            workers, overwrite)


def read_synonyms(path: Path) -> Dict[str, List[str]]:
    """Read ``{"class": ["other word", ...]}``.

    Args:
        path (Path): A JSON file.

    Raises:
        TypeError: If it is something else.
        ValueError: If it is not valid JSON.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise TypeError(f'{path}: expected an object of lists by class name, '
                        f'got {type(content).__name__}')
    return {key: typed_list(content, key, str, str(path)) for key in content}
