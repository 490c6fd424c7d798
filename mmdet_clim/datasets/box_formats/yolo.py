# Licensed under the Apache License, Version 2.0.
"""YOLO's layout: ``data.yaml``, and a text of boxes for each image."""
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ..caption_sources import IMAGE_SUFFIXES
from ..class_names import clean_names, names_by_number, parse_yaml
from ..coco_annotations import extent, file_sizes
from ..images import UnreadableImageError
from ..preparation.files import linked_folders
from ..text_files import read_lines, read_text
from .entries import CocoEntries, find_image, numbers

#: Names under which a split stands in the file.
SPLITS = {'train': ('train', ), 'val': ('val', 'valid', 'test')}
#: Files of class names that tools write instead of ``data.yaml``: Label
#: Studio, Darknet and CVAT.
NAME_FILES = ('classes.txt', 'obj.names')
# Boxes may reach out of their image; what is farther is no fraction of it.
_BEYOND = 1


def read_yolo(path: Path, split: str) -> CocoEntries:
    """Read a split of a YOLO data set.

    Args:
        path (Path): The ``data.yaml``, or the text of class names beside
            ``images`` or the lists ``train.txt`` and ``valid.txt``.
        split (str): ``'train'`` or ``'val'``; the test set stands for a
            missing validation set.

    Raises:
        FileNotFoundError: If an image folder is not there.
        ValueError: If a file does not hold what it should; the message names
            file and line.
    """
    if path.name in NAME_FILES:
        content = _without_yaml(path)
    else:
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
    read_size = file_sizes('')
    images = _images(content[key], root, path)
    texts = list(map(_labels_of, images))
    if not any(texts):
        raise ValueError(f'{path}: expected texts of boxes below labels or '
                         f'beside the images, got none for {images[0]}')
    for image, labels in zip(images, texts):
        try:
            size = read_size(str(image.absolute()))
        except (OSError, UnreadableImageError):
            # It is counted where images are checked.
            entries.image(image, str(image))
            continue
        number = entries.image(image, str(image), size)
        if labels is not None:
            for line, text in read_lines(labels):
                if text.strip():
                    where = f'{labels}: line {line}'
                    name, box = _box(text, names, where,
                                     bool(content.get('kpt_shape')))
                    entries.box(number, name, [
                        box[0] * size[0], box[1] * size[1], box[2] * size[0],
                        box[3] * size[1]
                    ], where)
    return entries


def _names(content: dict, path: Path) -> list[str]:
    names = content.get('names')
    got = type(names).__name__
    if isinstance(names, dict) and names:
        got = f'numbers {sorted(map(str, names))[:8]}'
        # Numbers in quotes are texts.
        if set(map(str, names)) == set(map(str, range(len(names)))):
            names = names_by_number(names)
    if not isinstance(names, list) or not names:
        raise ValueError(f"{path}: key 'names': expected a list of classes, "
                         f'or classes by their numbers from 0, got {got}')
    if content.get('nc', len(names)) != len(names):
        raise ValueError(f"{path}: key 'nc': expected {len(names)}, the "
                         f"length of 'names', got {content['nc']!r}")
    # YAML takes digits for numbers, and yes and no for true and false.
    return clean_names(
        [str(name) if type(name) is int else name for name in names],
        f'{path}: names')


def _images(where: Any, root: Path, path: Path) -> list[Path]:
    """The images of a split: folders, or lists of images in a text."""
    found: list[Path] = []
    for name in where if isinstance(where, list) else [where]:
        place = _place_of(str(name), root, path.parent)
        if place.is_dir():
            found += sorted(
                Path(parent, name) for parent, names in linked_folders(place)
                for name in names
                if Path(name).suffix.lower() in IMAGE_SUFFIXES
                # What macOS writes into archives.
                and not name.startswith('._'))
        elif place.is_file():
            found += [
                find_image(line.strip(), [place.parent, root])
                or place.parent / line.strip() for _, line in read_lines(place)
                if line.strip()
            ]
        else:
            raise FileNotFoundError(f'{path}: {name} does not exist, neither '
                                    f'below {root} nor as {place}')
    if not found:
        raise ValueError(f'{path}: expected images in {where}, got none')
    return list(dict.fromkeys(found))


def _place_of(name: str, root: Path, folder: Path) -> Path:
    """The folder or list of a split, whose set may have been made elsewhere.

    Roboflow writes ``../train/images`` beside ``train``, notebooks write
    ``/content/set/train/images``: two parts of the name have to be there.
    """
    whole = PurePosixPath(name.replace('\\', '/'))
    parts = [part for part in whole.parts if part not in ('..', '/')]
    ends = [PurePosixPath(*parts[n:]) for n in range(max(1, len(parts) - 1))]
    for end in (whole, *ends):
        for base in (root, folder):
            if (base / end).exists():
                return base / end
    return root / name


def _labels_of(image: Path) -> Path | None:
    """The text of an image: below ``labels``, or else beside it."""
    parts = list(image.parts)
    texts = [image.with_suffix('.txt')]
    for place in range(len(parts) - 1):
        if parts[place] == 'images':
            texts.insert(
                0,
                Path(*parts[:place], 'labels',
                     *parts[place + 1:]).with_suffix('.txt'))
    return next((text for text in texts if text.is_file()), None)


def _without_yaml(path: Path) -> dict:
    """What ``data.yaml`` would hold."""
    names = [line.strip() for _, line in read_lines(path) if line.strip()]
    content: dict = dict(names=names)
    for keys in SPLITS.values():
        for key in keys:
            if (path.parent / f'{key}.txt').is_file():
                content[key] = f'{key}.txt'
    if len(content) == 1:
        # A set without splits, for the purpose that it is given for.
        images = 'images' if (path.parent / 'images').is_dir() else '.'
        content.update(train=images, val=images)
    return content


def _box(text: str, names: Sequence[str], where: str,
         has_points: bool) -> tuple:
    """Class and box (x, y, width, height), in fractions of the image.

    Args:
        has_points (bool): Whether keypoints stand after the box.
    """
    values = numbers(text.split(), where)
    label = int(values[0])
    if label != values[0] or not 0 <= label < len(names):
        raise ValueError(f'{where}: expected a class from 0 to '
                         f'{len(names) - 1}, got {text.split()[0]}')
    shape = values[1:5] if has_points else values[1:]
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
    if any(not -_BEYOND <= value <= 1 + _BEYOND for value in shape):
        raise ValueError(f'{where}: expected fractions of the image, from 0 '
                         f'to 1, got {text.strip()!r}')
    return names[label], box
