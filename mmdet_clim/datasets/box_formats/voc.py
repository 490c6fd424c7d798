# Licensed under the Apache License, Version 2.0.
"""Pascal VOC's layout: an XML for each image."""
from pathlib import Path
from typing import Iterable, List, Optional
from xml.etree.ElementTree import Element

from ..caption_sources import IMAGE_SUFFIXES
from .entries import CocoEntries, numbers
from .xml_files import read_xml

#: Where VOC's own layout has the images of ``Annotations``.
IMAGE_FOLDERS = ('JPEGImages', 'images')


def read_voc(files: Iterable[Path], folder: Path) -> CocoEntries:
    """Read XML files.

    A size of 0 counts as unknown. Objects that are marked as difficult are
    ignored in training and evaluation, as crowds are.

    Args:
        folder (Path): Of the images; an image is looked for in it, beside its
            XML and in ``JPEGImages`` beside the XML's folder.

    Raises:
        ValueError: If a file lacks something; the message names it.
    """
    entries = CocoEntries(folder)
    for file in files:
        root = read_xml(file)
        if root.tag != 'annotation':
            raise ValueError(f'{file}: expected <annotation> of Pascal VOC, '
                             f'got <{root.tag}>')
        image = entries.image(_image_of(file, root, folder), _size(root, file))
        for number, shown in enumerate(root.findall('object')):
            where = f'{file}: object {number}'
            name = (shown.findtext('name') or '').strip()
            if not name:
                raise ValueError(f'{where}: expected a <name>, got none')
            left, top, right, bottom = numbers([
                shown.findtext(f'bndbox/{side}')
                for side in ('xmin', 'ymin', 'xmax', 'ymax')
            ], f'{where}: bndbox')
            entries.box(
                image,
                name, [left, top, right - left, bottom - top],
                ignore=shown.findtext('difficult', '').strip() == '1')
    return entries


def _size(root: Element, file: Path) -> Optional[tuple]:
    sides = [root.findtext(f'size/{side}') for side in ('width', 'height')]
    if None in sides:
        return None
    width, height = numbers(sides, f'{file}: size')
    return int(width), int(height)


def _image_of(file: Path, root: Element, folder: Path) -> Path:
    """The image of an XML, by the name in it or by its own."""
    named = (root.findtext('filename') or '').strip().replace('\\', '/')
    places: List[Path] = [folder, file.parent]
    places += [file.parent.parent / name for name in IMAGE_FOLDERS]
    names = [named] if named else []
    names += [file.stem + suffix for suffix in IMAGE_SUFFIXES]
    for name in names:
        for place in places:
            if (place / name).is_file():
                return place / name
    return folder / (named or f'{file.stem}.jpg')
