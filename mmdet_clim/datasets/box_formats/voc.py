# Licensed under the Apache License, Version 2.0.
"""Pascal VOC's layout: an XML for each image."""
import re
from collections.abc import Sequence, Set
from itertools import product
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element

from ..caption_sources import IMAGE_SUFFIXES
from ..text_files import read_lines
from .entries import IMAGE_FOLDERS, CocoEntries, find_image, numbers
from .xml_files import read_xml

# The lists of a split below ``ImageSets/Main``, the first one counts.
_LISTS = {'train': ('train', 'trainval'), 'val': ('val', 'test')}


def read_voc(files: Sequence[Path], folder: Path, split: str) -> CocoEntries:
    """Read XML files.

    A size of 0 counts as unknown. Objects that are marked as difficult are
    ignored in training and evaluation, as crowds are.

    Args:
        files (Sequence[Path]): One, or those of a folder, of which only those
            of the split count if there are lists of splits beside the folder,
            in ``ImageSets/Main``.
        folder (Path): Of the images; an image is looked for in it, beside its
            XML and in ``JPEGImages`` beside the XML's folder.
        split (str): ``'train'`` or ``'val'``.

    Raises:
        ValueError: If a file lacks something; the message names it.
    """
    entries = CocoEntries(folder)
    if len(files) > 1:
        files = _of_split(files, split, entries)
    for file in files:
        root = read_xml(file)
        if root.tag != 'annotation':
            raise ValueError(f'{file}: expected <annotation> of Pascal VOC, '
                             f'got <{root.tag}>')
        image = entries.image(
            _image_of(file, root, folder), str(file), _size(root, file))
        for number, shown in enumerate(root.findall('object')):
            where = f'{file}: object {number}'
            name = shown.findtext('name') or ''
            if not name.strip():
                raise ValueError(f'{where}: expected a <name>, got none')
            left, top, right, bottom = numbers([
                shown.findtext(f'bndbox/{side}')
                for side in ('xmin', 'ymin', 'xmax', 'ymax')
            ], f'{where}: bndbox')
            hard = shown.findtext('difficult', '').strip().lower()
            entries.box(
                image,
                name, [left, top, right - left, bottom - top],
                where,
                ignore=hard in ('1', 'true'))
    return entries


def _of_split(files: Sequence[Path], split: str,
              entries: CocoEntries) -> Sequence[Path]:
    """Those that the list of the split names, all where there is none."""
    stems = {file.stem for file in files}
    for above, name in product(files[0].absolute().parents[1:3],
                               _LISTS[split]):
        path = above / 'ImageSets' / 'Main' / f'{name}.txt'
        if path.is_file():
            named = {
                n: _listed(line, stems)
                for n, line in read_lines(path) if line.strip()
            }
            kept = [file for file in files if file.stem in named.values()]
            if not kept:
                raise ValueError(f'{path}: expected names of some of the '
                                 f'{len(files)} XML files in '
                                 f'{files[0].parent}, got '
                                 f'{sorted(named.values())[:3]}')
            for n, name in named.items():
                if name not in stems:
                    entries.left_out.append(
                        ('names of a list that have no XML',
                         f'{path}: line {n}: {name}'))
            return kept
    return files


def _listed(line: str, stems: Set[str]) -> str:
    """The name in a line, of a list of images or of those of a class."""
    # CVAT has quotes around names with blanks.
    name = PurePosixPath(line.strip().strip('"')).name
    shorter = re.sub(r'\s+(-1|0|1)$', '', name)
    for other in (name, shorter, PurePosixPath(shorter).stem):
        if other in stems:
            return other
    return name


def _size(root: Element, file: Path) -> tuple | None:
    sides = [root.findtext(f'size/{side}') for side in ('width', 'height')]
    if not all(side and side.strip() for side in sides):
        return None
    width, height = numbers(sides, f'{file}: size')
    return int(width), int(height)


def _image_of(file: Path, root: Element, folder: Path) -> Path:
    """The image of an XML, by its own name or the one in it.

    Its own comes first: the other stays behind where files are renamed.
    """
    named = (root.findtext('filename') or '').strip().replace('\\', '/')
    above = file.absolute().parents
    places = [above[2] / name / file.parent.name for name in IMAGE_FOLDERS]
    places += [folder, file.parent]
    places += [
        base / name for base in (folder, *above[1:3]) for name in IMAGE_FOLDERS
    ]
    inner = PurePosixPath(named or file.stem)
    names = [
        str(inner.with_name(file.stem + end))
        for end in (inner.suffix, *IMAGE_SUFFIXES) if end
    ]
    for name in (*names, named):
        path = find_image(name, places)
        if path is not None:
            return path
    return folder / (named or f'{file.stem}.jpg')
