# Licensed under the Apache License, Version 2.0.
"""YOLO's layout: ``data.yaml``, and a text of boxes for each image."""
from pathlib import Path
from typing import Any, Callable, List, Sequence, cast

from ..caption_sources import IMAGE_SUFFIXES
from ..class_names import clean_names, parse_yaml
from ..coco_annotations import file_sizes
from ..images import UnreadableImageError
from ..preparation.files import linked_folders
from ..text_files import read_lines, read_text
from .entries import CocoEntries, extent, numbers

#: Names under which a split stands in the file.
SPLITS = {'train': ('train', ), 'val': ('val', 'valid', 'test')}
#: Rounding in fractions of the image.
ROUNDING = 1e-3


def read_yolo(path: Path, split: str) -> CocoEntries:
    """Read a split of a YOLO data set.

    Args:
        path (Path): The ``data.yaml``.
        split (str): ``'train'`` or ``'val'``; the test set stands for a
            missing validation set.

    Raises:
        FileNotFoundError: If an image folder is not there.
        ValueError: If a file does not hold what it should; the message names
            file and line.
    """
    content = parse_yaml(read_text(path), str(path))
    if not isinstance(content, dict):
        raise ValueError(f'{path}: expected a YOLO data set with names and '
                         f'train, got {type(content).__name__}')
    names = _names(content, path)
    key = next((k for k in SPLITS[split] if content.get(k)), None)
    if key is None:
        raise ValueError(f'{path}: expected {" or ".join(SPLITS[split])}, got '
                         f'{sorted(map(str, content))}')
    root = path.parent / str(content.get('path') or '')
    entries = CocoEntries(path.parent, names)
    read_size = cast(Callable, file_sizes(''))
    for image in _images(content[key], root, path):
        try:
            size = read_size(str(image.absolute()))
        except (OSError, UnreadableImageError):
            # It is counted where images are checked.
            entries.image(image)
            continue
        number = entries.image(image, size)
        labels = _labels_of(image)
        if labels.is_file():
            for line, text in read_lines(labels):
                if text.strip():
                    name, box = _box(text, names, f'{labels}: line {line}')
                    entries.box(number, name, [
                        box[0] * size[0], box[1] * size[1], box[2] * size[0],
                        box[3] * size[1]
                    ])
    return entries


def _names(content: dict, path: Path) -> List[str]:
    names = content.get('names')
    if isinstance(names, dict) and names and \
            sorted(names, key=str) == sorted(range(len(names)), key=str):
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise ValueError(f"{path}: key 'names': expected a list of classes, "
                         'or classes by their numbers from 0, got '
                         f'{type(names).__name__}')
    # YAML takes digits for numbers, and yes and no for true and false.
    return clean_names(
        [str(name) if type(name) is int else name for name in names],
        f'{path}: names')


def _images(where: Any, root: Path, path: Path) -> List[Path]:
    """The images of a split: folders, or lists of images in a text."""
    found: List[Path] = []
    for name in where if isinstance(where, list) else [where]:
        place = root / str(name)
        if not place.exists():
            # Roboflow writes ../train/images beside train/.
            place = root / str(name).removeprefix('../')
        if place.is_dir():
            found += sorted(
                Path(parent, name) for parent, names in linked_folders(place)
                for name in names
                if Path(name).suffix.lower() in IMAGE_SUFFIXES)
        elif place.is_file():
            found += [
                place.parent / line.strip() for _, line in read_lines(place)
                if line.strip()
            ]
        else:
            raise FileNotFoundError(f'{path}: {name} does not exist, neither '
                                    f'below {root} nor as {place}')
    if not found:
        raise ValueError(f'{path}: expected images in {where}, got none')
    return found


def _labels_of(image: Path) -> Path:
    """The text of an image: below ``labels`` where it is below ``images``."""
    parts = list(image.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == 'images':
            parts[place] = 'labels'
            return Path(*parts).with_suffix('.txt')
    return image.with_suffix('.txt')


def _box(text: str, names: Sequence[str], where: str) -> tuple:
    """Class and box (x, y, width, height), in fractions of the image."""
    values = numbers(text.split(), where)
    label = int(values[0])
    if label != values[0] or not 0 <= label < len(names):
        raise ValueError(f'{where}: expected a class from 0 to '
                         f'{len(names) - 1}, got {text.split()[0]}')
    shape = values[1:]
    if len(shape) == 4:
        x, y, width, height = shape
        box = [x - width / 2, y - height / 2, width, height]
    elif len(shape) >= 6 and len(shape) % 2 == 0:
        # Polygons, and boxes that are turned.
        box = extent(list(zip(shape[::2], shape[1::2])))
    else:
        raise ValueError(
            f'{where}: expected a class and x, y, width, height, or the '
            f'points of a polygon, got {len(values)} numbers')
    if any(not -ROUNDING <= value <= 1 + ROUNDING for value in shape):
        raise ValueError(f'{where}: expected fractions of the image, from 0 '
                         f'to 1, got {text.strip()!r}')
    return names[label], box
