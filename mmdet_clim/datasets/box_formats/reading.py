# Licensed under the Apache License, Version 2.0.
"""Which layout a source of boxes has."""
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..coco_annotations import (
    CocoChecker,
    Size,
    check_coco,
    file_sizes,
    image_file_name,
)
from ..json_files import read_json
from ..json_stream import JSONObject
from .cvat import read_cvat
from .entries import IMAGE_FOLDERS, CocoEntries, find_image, relative_name
from .label_studio import is_label_studio, read_label_studio
from .voc import read_voc
from .xml_files import read_xml
from .yolo import NAME_FILES, SPLITS, read_yolo

YAML_SUFFIXES = ('.yaml', '.yml')
#: What services write into a folder of images.
COCO_NAMES = ('_annotations.coco.json', 'annotations.json', 'labels.json',
              'result.json', 'annotations/instances_default.json')
#: COCO's own layout: a file for each split.
COCO_OF_SPLIT = 'annotations/instances_{}*.json'
LAYOUTS = ('COCO JSON, YOLO data.yaml, Pascal VOC, CVAT for images, or Label '
           'Studio JSON')


@dataclass
class OwnBoxes:
    """Boxes in COCO's layout, checked.

    Args:
        content (dict): As a COCO JSON holds it.
        file (Path, optional): The file, where it is a COCO JSON itself.
        notes (str): What was repaired and left out, in one line.
    """

    content: dict
    images: Path
    file: Path | None = None
    notes: str = ''


def read_boxes(source: Path,
               images: Path | None = None,
               split: str = 'train',
               shown: str = '',
               clip: bool = True) -> OwnBoxes:
    """Read and check boxes of any layout.

    Args:
        source (Path): A file: a COCO JSON, YOLO's ``data.yaml`` or
            ``classes.txt``, an XML of
            Pascal VOC or of CVAT, a JSON of Label Studio. Or a folder of one
            of these, of XML files of Pascal VOC, or with ``Annotations``; or
            one with a folder for each split, ``train``, ``valid`` and so on.
        images (Path, optional): Folder of the images; that of the source, as
            its layout has it, if not given.
        split (str): ``'train'`` or ``'val'``, where a source has several.
        shown (str): What to begin messages with.
        clip (bool): Whether this is for training: boxes are clipped to their
            image, and images of unknown size that cannot be read left out.

    Returns:
        OwnBoxes: With at least one box.

    Raises:
        FileNotFoundError: If there is no such source.
        ValueError: If it is none of these, or cannot be repaired; the message
            names file, entry and value.
    """
    given = source = Path(source)
    files = [source]
    folder = source.parent
    if source.is_dir():
        folder, source, files = _file_of(source, split)
    folder = images or folder
    entries: CocoEntries | None = None
    if source.suffix.lower() in YAML_SUFFIXES or source.name in NAME_FILES:
        entries = read_yolo(source, split)
        if images is not None:
            entries = _below(entries, images)
        folder = entries.folder
    elif source.suffix.lower() == '.xml':
        root = read_xml(source)
        if root.tag == 'annotations':
            entries = read_cvat(source, root, folder)
        else:
            entries = read_voc(files, folder, split)
    elif source.suffix.lower() != '.json':
        raise ValueError(f'{shown}{source}: expected {LAYOUTS}, got a '
                         f'{source.suffix or "file without a suffix"}')
    else:
        is_list = JSONObject(source).kind == 'list'
        tasks: Any = read_json(source) if is_list else None
        if is_label_studio(tasks):
            entries = read_label_studio(source, tasks, folder)
        elif is_list:
            raise ValueError(f'{shown}{source}: expected {LAYOUTS}, got a '
                             'JSON list of something else')
    # CVAT: annotations/instances_SUBSET.json, and images/SUBSET; COCO: SUBSET.
    subset = source.stem.rpartition('_')[2]
    places = [
        folder, *(folder / name for name in IMAGE_FOLDERS), folder / subset,
        folder / 'images' / subset
    ]
    sizes = file_sizes(folder)

    def read_size(name: str) -> Size:
        path = find_image(name, places)
        return sizes(name if path is None else str(path.absolute()))

    checker = CocoChecker(
        f'{shown}{given}',
        read_size=read_size,
        clip=clip,
        skip_unreadable=clip)
    content: Any = source
    if entries is not None:
        checker.places = {
            key: [_short(place, given) for place in of]
            for key, of in entries.places.items()
        }
        for what, where in entries.left_out:
            checker.drop(what, _short(where, given))
        if not entries.annotations:
            raise ValueError(
                f'{shown}{given}: expected boxes, got none in '
                f'{len(entries.images)} images. {checker.report()}'.rstrip())
        content = entries.coco()
    content = check_coco(content, checker, need_boxes=True)
    file: Path | None = source
    if entries is not None or _find_images(content, places, checker.file):
        file = None
    return OwnBoxes(content, folder, file, checker.report())


def _find_images(content: dict, places: Sequence[Path], where: str) -> bool:
    """Name images as they are found.

    Args:
        places (Sequence[Path]): The first one is what names are relative to.

    Returns:
        bool: Whether there is another name now.

    Raises:
        ValueError: If two names are of the same image.
    """
    found: dict[str, str] = {}
    changed = False
    for image in content['images']:
        given = image_file_name(image)
        name, path = given, find_image(given, places)
        if path not in (None, places[0] / given):
            name = relative_name(path, places[0])
        other = found.setdefault(name, given)
        if other != given:
            raise ValueError(f'{where}: {other!r} and {given!r}: expected two '
                             f'images, got only {name!r} in {places[0]}')
        if name != given:
            image['file_name'] = name
            changed = True
    return changed


def _short(where: str, given: Path) -> str:
    """The place of an entry, behind the name of what was given."""
    folder = given if given.is_dir() else given.parent
    return where.removeprefix(f'{given}: ').removeprefix(f'{folder}/')


def _file_of(folder: Path, split: str) -> tuple:
    """The folder that has a split, the file that tells of its boxes, and all
    of its kind.
    """
    inner = [folder / name for name in SPLITS[split]]
    for place in (folder, *inner):
        files = _files_in(place) if place.is_dir() else []
        if files:
            return place, files[0], files
    for name in SPLITS[split]:
        files = _visible(folder.glob(COCO_OF_SPLIT.format(name)), '.json')
        if len(files) == 1:
            return folder, files[0], files
    files = _visible(folder.glob('*'), '.json')
    if len(files) == 1:
        return folder, files[0], files
    raise ValueError(f'{folder}: expected {LAYOUTS}, or a folder '
                     f'{" or ".join(SPLITS[split])} with one of them; got a '
                     f'folder with none, and with {len(files)} JSON files')


def _files_in(folder: Path) -> list[Path]:
    """The file that tells of a folder's boxes, or all XML files of it."""
    for pattern in ('data.yaml', 'data.yml', 'dataset.yaml', *COCO_NAMES):
        if (folder / pattern).is_file():
            return [folder / pattern]
    files = _visible(folder.glob('*'), '.xml')
    for name in ('Annotations', 'annotations'):
        files = files or _visible((folder / name).rglob('*'), '.xml')
    return files or [
        folder / name for name in NAME_FILES if (folder / name).is_file()
    ][:1]


def _visible(files: Iterable[Path], suffix: str) -> list[Path]:
    """Files in order, without those that macOS writes into archives."""
    return sorted(
        file for file in files
        if file.suffix.lower() == suffix and not file.name.startswith('._'))


def _below(entries: CocoEntries, images: Path) -> CocoEntries:
    """The same images, named below another folder."""
    for image in entries.images:
        path = entries.folder / image['file_name']
        if not path.is_file():
            path = images / path.name
        image['file_name'] = relative_name(path, images)
    entries.folder = images
    return entries
