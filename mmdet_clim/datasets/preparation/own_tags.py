# Licensed under the Apache License, Version 2.0.
"""Images that have names of classes and no captions."""
import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from pathlib import Path

from mmengine.logging import print_log

from ..box_formats.entries import find_image, relative_name
from ..caption_sources import IMAGE_SUFFIXES
from ..class_names import names_by_spelling, parse_yaml, spelling
from ..coco_annotations import image_file_name
from ..tables import TABLES, table_rows
from ..text_files import is_text, read_lines
from ..vocabulary import Vocabulary
from .files import linked_folders

#: Says that the folder of an image is its class.
FOLDERS = 'folders'
#: Says that the boxes of an image have its classes.
BOXES = 'boxes'
IMAGE_COLUMNS = ('file_name', 'filename', 'file', 'file_path', 'filepath',
                 'image', 'image_name', 'image_path', 'img', 'path')
TAG_COLUMNS = ('tag', 'tags', 'label', 'labels', 'class', 'classes',
               'category', 'categories')
_YES, _NO = ('1', '1.0', 'true', 'yes'), ('0', '0.0', 'false', 'no', '')


def tagged_images(source: Path, images: Path,
                  vocabulary: Vocabulary) -> list[dict]:
    """Images with tags, as a captions file has them.

    Args:
        source (Path): ``'folders'``: the nearest folder of an image
            that is a class, or else the one that it is in. Or a ``.csv`` or
            ``.tsv`` with a line of column names, of which one is the image;
            another one has its tags (separated by ``;``, ``|`` or ``,``, or a
            list in brackets; an image may have several rows), or each of the
            others is a class, with 1 or 0. Without column names, a row is an
            image and its tags.
        images (Path): Folder of the images. Of a table's paths, leading
            folders that are not in it are left out.
        vocabulary (Vocabulary): A tag that is spelled like a phrase of a
            class but for capitals, ``_`` and ``-`` is that class.

    Returns:
        list[dict]: ``file_name``, ``tags``, and ``caption``, which is nothing
        but the tags.

    Raises:
        FileNotFoundError: If there is no such table.
        ValueError: If it has other columns or values, or there is no image.
    """
    spelled = names_by_spelling(vocabulary.all_phrases)
    if str(source) == FOLDERS:
        pairs = _of_folders(images, spelled)
    else:
        pairs = _of_table(source, images)
    return _entries(pairs, spelled, f'{source}: expected images with tags in '
                    f'{images}')


def boxed_images(content: Mapping, folder: Path, images: Path,
                 names: Sequence[str]) -> list[dict]:
    """Images with the classes of their boxes as tags.

    Args:
        content (Mapping): The boxes, as a COCO JSON holds them, checked.
        folder (Path): Folder of the images of the boxes.
        images (Path): Folder of the captioned images, the same or one above
            or below; images elsewhere are left out.
        names (Sequence[str]): The vocabulary; others are left out.

    Returns:
        list[dict]: As of :func:`tagged_images`.

    Raises:
        ValueError: If no image below ``images`` has a box of the vocabulary.
    """
    root = images.absolute()
    files = {
        entry['id']:
        Path(os.path.normpath(folder.absolute() / image_file_name(entry)))
        for entry in content['images']
    }
    classes = {c['id']: c['name'] for c in content['categories']}
    pairs = [(path.relative_to(root).as_posix(), name)
             for path, name in ((files[entry['image_id']],
                                 classes[entry['category_id']])
                                for entry in content['annotations'])
             if name in set(names) and path.is_relative_to(root)]
    return _entries(
        pairs, {}, f'--tags {BOXES}: expected boxes of the '
        f'vocabulary in images below {images}')


def _entries(pairs: Iterable[tuple[str, str]], spelled: Mapping[str, str],
             expected: str) -> list[dict]:
    """Images and tags, one by one, as a captions file has them."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, tag in pairs:
        tag = spelled.get(spelling(tag), tag)
        if tag not in found[name]:
            found[name].append(tag)
    if not found:
        raise ValueError(f'{expected}, got none')
    return [
        dict(file_name=name, caption=', '.join(tags), tags=tags)
        for name, tags in found.items()
    ]


def _of_folders(images: Path,
                spelled: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    found = [
        Path(parent, name).relative_to(images)
        for parent, names in linked_folders(images) for name in names if
        Path(name).suffix.lower() in IMAGE_SUFFIXES and Path(parent) != images
    ]
    for path in sorted(found):
        name = path.as_posix()
        # What systems write beside images.
        if any(part.startswith(('.', '__MACOSX')) for part in path.parts):
            continue
        if is_text(name):
            folders = [folder.name for folder in path.parents][:-1]
            yield name, next((of for of in folders if spelling(of) in spelled),
                             folders[0])
        else:
            print_log(
                f'{name!r}: the name of an image is not UTF-8, it is '
                'left out', 'current', logging.WARNING)


def _of_table(path: Path, images: Path) -> Iterator[tuple[str, str]]:
    for named, pairs in groupby(_rows_of(path), lambda pair: pair[0]):
        file = find_image(named, [images])
        name = named if file is None else relative_name(file, images)
        yield from ((name, tag) for _, tag in pairs)


def _rows_of(path: Path) -> Iterator[tuple[str, str]]:
    if path.suffix.lower() not in TABLES:
        raise ValueError(f'{path}: expected a .csv or .tsv, or '
                         f'{FOLDERS!r} for images in folders of their class')
    rows = (
        row for row in table_rows(
            read_lines(path), path.suffix.lower(), str(path), skip_blanks=True)
        if any(map(str.strip, row[1])))
    head = [cell.strip() for cell in next(rows, (1, []))[1]]
    image = next(
        (n for n, cell in enumerate(head) if cell.lower() in IMAGE_COLUMNS),
        None)
    if image is None and head and head[0].lower().endswith(IMAGE_SUFFIXES):
        yield from _without_names(chain([(1, head)], rows), path)
        return
    if image is None or len(head) < 2:
        raise ValueError(f'{path}: line 1: expected a column of images '
                         f'({", ".join(IMAGE_COLUMNS)}) and one of tags, got '
                         f'{head}')
    others = [n for n in range(len(head)) if n != image]
    tags = [n for n in others if head[n].lower() in TAG_COLUMNS]
    if len(tags) == 1:
        others = tags
    for line, row in rows:
        if len(row) != len(head) or not row[image].strip():
            raise ValueError(f'{path}: line {line}: expected an image and '
                             f'{len(head)} cells, got {row}')
        for tag in _tags(head, row, others, f'{path}: line {line}'):
            yield row[image].strip(), tag


def _tags(head: Sequence[str], row: Sequence[str], others: Sequence[int],
          where: str) -> list[str]:
    """The tags of a row: in one cell, or a column for each class."""
    cells = {n: row[n].strip().lower() for n in others}
    first = others[0]
    if len(others) == 1 and (head[first].lower() in TAG_COLUMNS
                             or cells[first] not in (*_YES, *_NO)):
        return _separated(row[first], where)
    wrong = [row[n] for n in others if cells[n] not in (*_YES, *_NO)]
    if wrong:
        raise ValueError(f'{where}: expected 0 or 1 for each of {len(others)} '
                         f'classes, got {wrong[0]!r}')
    return [head[n] for n in others if cells[n] in _YES]


def _separated(cell: str, where: str) -> list[str]:
    """The tags of a cell, which may be a list as Python writes it."""
    if re.fullmatch(r'\s*\[.*\]\s*', cell):
        return [str(tag) for tag in parse_yaml(cell, where)]
    return [tag.strip() for tag in re.split('[;|,]', cell) if tag.strip()]


def _without_names(rows: Iterable[tuple[int, list[str]]],
                   path: Path) -> Iterator[tuple[str, str]]:
    """Images and tags of a table whose columns have no names."""
    for line, row in rows:
        name, *cells = (cell.strip() for cell in row)
        tags = [
            tag for cell in cells
            for tag in _separated(cell, f'{path}: line {line}')
        ]
        numbers = [tag for tag in tags if tag.replace('.', '').isdigit()]
        if not name or not tags or numbers:
            raise ValueError(f'{path}: line {line}: expected an image and its '
                             f'tags, got {row}; a table of other columns '
                             'needs a line of their names')
        for tag in tags:
            yield name, tag
