# Licensed under the Apache License, Version 2.0.
"""Which layout a source of boxes has."""
from dataclasses import dataclass
from pathlib import Path
from typing import Any, List, Optional

from ..coco_annotations import CocoChecker, check_coco, file_sizes
from ..json_files import read_json
from ..json_stream import JSONObject
from .cvat import read_cvat
from .entries import CocoEntries
from .label_studio import is_label_studio, read_label_studio
from .voc import read_voc
from .xml_files import read_xml
from .yolo import read_yolo

YAML_SUFFIXES = ('.yaml', '.yml')
#: What services write into a folder of images.
COCO_NAMES = ('_annotations.coco.json', 'annotations.json', 'labels.json')
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
    file: Optional[Path] = None
    notes: str = ''


def read_boxes(source: Path,
               images: Optional[Path] = None,
               split: str = 'train',
               shown: str = '',
               clip: bool = True) -> OwnBoxes:
    """Read and check boxes of any layout.

    Args:
        source (Path): A file: a COCO JSON, YOLO's ``data.yaml``, an XML of
            Pascal VOC or of CVAT, a JSON of Label Studio. Or a folder of one
            of these, of XML files of Pascal VOC, or with ``Annotations``.
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
    folder = images or (source if source.is_dir() else source.parent)
    files = [source]
    if source.is_dir():
        source, files = _file_of(source)
    content: Any = None
    file = None
    if source.suffix.lower() in YAML_SUFFIXES:
        entries = read_yolo(source, split)
        if images is not None:
            entries = _below(entries, images)
        folder = entries.folder
    elif source.suffix.lower() == '.xml':
        root = read_xml(source)
        if root.tag == 'annotations':
            entries = read_cvat(source, root, folder)
        else:
            entries = read_voc(files, folder)
    else:
        content = source
        if JSONObject(source).kind == 'list':
            content = read_json(source)
        if is_label_studio(content):
            entries, content = read_label_studio(source, content, folder), None
        else:
            file = source
    if content is None:
        content = entries.coco()
    checker = CocoChecker(
        f'{shown}{given}',
        read_size=file_sizes(folder),
        clip=clip,
        skip_unreadable=clip)
    content = check_coco(content, checker, need_boxes=True)
    return OwnBoxes(content, folder, file, checker.report())


def _file_of(folder: Path) -> tuple:
    """The file that tells of a folder's boxes, and all of its kind."""
    for pattern in ('data.yaml', 'data.yml', 'dataset.yaml', *COCO_NAMES):
        if (folder / pattern).is_file():
            return folder / pattern, [folder / pattern]
    for place in (folder, folder / 'Annotations', folder / 'annotations'):
        files: List[Path] = sorted(place.glob('*.xml'))
        if files:
            return files[0], files
    files = sorted(folder.glob('*.json'))
    if len(files) == 1:
        return files[0], files
    raise ValueError(f'{folder}: expected {LAYOUTS}; got a folder with none '
                     f'of them, or with several of {len(files)} JSON files')


def _below(entries: CocoEntries, images: Path) -> CocoEntries:
    """The same images, named below another folder."""
    for image in entries.images:
        path = entries.folder / image['file_name']
        if not path.is_file():
            path = images / path.name
        moved = CocoEntries(images)
        moved.image(path)
        image['file_name'] = moved.images[0]['file_name']
    entries.folder = images
    return entries
