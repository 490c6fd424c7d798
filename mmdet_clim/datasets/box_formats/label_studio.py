# Licensed under the Apache License, Version 2.0.
"""Label Studio's exports, "JSON" and "JSON-MIN"."""
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ..caption_sources import IMAGE_SUFFIXES
from ..coco_annotations import extent
from ..images import UnreadableImageError, image_size
from ..regular_files import read_regular
from .entries import CocoEntries, ellipse, numbers, point, turned

# Label Studio puts eight digits before the name of an uploaded file.
_UPLOADED = re.compile(r'^[0-9a-f]{8}-')
_OF_UPLOADS = re.compile(r'(^|/)upload/\d+/[^/-]*-')
# Where a region has its classes; <Labels> beside <Rectangle> or <Polygon>
# writes the last.
_LABELS = ('rectanglelabels', 'polygonlabels', 'ellipselabels', 'labels')
# One of them tells that <Labels> are those of a box, polygon or ellipse.
_SHAPES = ('height', 'points', 'radiusX')
_NO_BOXES = ('rle', 'brushlabels', 'keypointlabels', 'vectorlabels')
_GEOMETRY = ('x', 'y', 'width', *_SHAPES, 'radiusY')


def is_label_studio(content: Any) -> bool:
    """Whether a JSON is an export of Label Studio."""
    return isinstance(content, list) and bool(content) and all(
        isinstance(task, dict) and (isinstance(task.get(
            'data'), dict) or 'annotator' in task or 'annotation_id' in task)
        for task in content)


def read_label_studio(file: Path, tasks: list, folder: Path) -> CocoEntries:
    """Read an export.

    Of several annotations of a task, the last one counts that was not
    cancelled; a task without one is left out, as nobody has looked at it.
    Rectangles that are turned, ellipses and polygons count as the boxes around
    them. A region of several classes is a box of each. Where a region does not
    tell the size of its image, it is read.

    Raises:
        ValueError: If a task names no image, or a region is none; the message
            names it.
    """
    entries = CocoEntries(folder)
    uploads = _names_of_uploads(entries.image_folders)
    # JSON-MIN has each annotation of a task on its own.
    last = {
        task['id']: number
        for number, task in enumerate(tasks)
        if 'data' not in task and isinstance(task.get('id'), int)
    }
    for number, task in enumerate(tasks):
        where = f'{file}: [{number}]'
        regions = _regions(task, where)
        if regions is None:
            entries.left_out.append(('tasks that nobody has labelled', where))
        elif 'data' not in task and last.get(task.get('id'), number) > number:
            entries.left_out.append(
                ('annotations of tasks with a later one', where))
        else:
            path = _image_of(task, entries, uploads, where)
            image = entries.image(path, f'{where} ({path.name})')
            _add_boxes(entries, image, path, regions, where)
    return entries


def _add_boxes(entries: CocoEntries, image: int, path: Path,
               regions: Sequence[dict], where: str) -> None:
    """Add the boxes of an image.

    Args:
        path (Path): Of the image.
    """
    labelled = [_geometry(of) for of in regions if _label_key(of)]
    for place, region in enumerate(regions):
        inner = f'{where}: region {place}'
        key = _label_key(region)
        shaped = bool(set(_SHAPES) & set(region))
        if set(_NO_BOXES) & set(region) or (key == 'labels' and not shaped):
            entries.left_out.append(('regions that are no boxes', inner))
        elif key is None:
            # <Rectangle> beside <Labels> writes each twice.
            if shaped and _geometry(region) not in labelled:
                entries.left_out.append(('regions without a label', inner))
        else:
            labels = region[key]
            labels = [labels] if isinstance(labels, str) else labels
            if not isinstance(labels, list) or not all(
                    isinstance(label, str) and label.strip()
                    for label in labels):
                raise ValueError(f'{inner}: key {key!r}: expected names of '
                                 f'classes, got {labels!r}')
            box = _box(region, path, inner)
            for label in labels:
                entries.box(image, label, box, inner)


def _label_key(region: dict) -> str | None:
    return next((key for key in _LABELS if region.get(key)), None)


def _geometry(region: dict) -> list:
    return [region.get(key) for key in _GEOMETRY]


def _regions(task: dict, where: str) -> list[dict] | None:
    """The regions of a task, None if it is not labelled."""
    if 'data' not in task:
        # JSON-MIN: the regions stand in the task itself.
        lists = [
            value for value in task.values()
            if isinstance(value, list) and value and all(
                isinstance(part, dict) for part in value)
        ]
        return [region for regions in lists for region in regions]
    done = [
        annotation for annotation in _objects(task, 'annotations', where)
        if not annotation.get('was_cancelled')
    ]
    if not done:
        return None
    regions = []
    for result in _objects(done[-1], 'result', f'{where}: annotation'):
        value = result.get('value')
        if isinstance(value, dict):
            for key in ('original_width', 'original_height'):
                value[key] = result.get(key)
            regions.append(value)
    return regions


def _objects(holder: dict, key: str, where: str) -> list[dict]:
    """A list of objects, which may be missing."""
    value = holder.get(key) or []
    if not isinstance(value, list) or not all(
            isinstance(part, dict) for part in value):
        raise ValueError(f'{where}: key {key!r}: expected a list of objects')
    return value


def _size_of(region: dict, path: Path, where: str) -> list[float]:
    """Width and height of the image of a region."""
    sides = [region.get(f'original_{side}') for side in ('width', 'height')]
    if not all(sides):
        try:
            sides = list(image_size(read_regular(path)))
        except (OSError, UnreadableImageError):
            raise ValueError(
                f'{where}: expected original_width and original_height, or '
                f'the image {path}, got {sides} and no image') from None
    return numbers(sides, f'{where}: original_width, original_height')


def _box(region: dict, path: Path, where: str) -> list[float]:
    """The box (x, y, width, height) of a region, in pixels."""
    across, down = (side / 100 for side in _size_of(region, path, where))
    if 'points' in region:
        points = region['points']
        if not isinstance(points, list) or not points:
            raise ValueError(f"{where}: key 'points': expected a list of x "
                             f'and y, got {points!r}')
        return extent([(x * across, y * down)
                       for x, y in (point(pair, where) for pair in points)])
    sides = ('radiusX', 'radiusY') if 'radiusX' in region else ('width',
                                                                'height')
    x, y, width, height = numbers(
        [region.get(key) for key in ('x', 'y', *sides)], where)
    box = [x * across, y * down, width * across, height * down]
    degrees, = numbers([region.get('rotation') or 0], where)
    if 'radiusX' in region:
        return ellipse(box, degrees)
    return turned(box, degrees, around=box[:2])


def _name_of_upload(name: str) -> str:
    """The name that Label Studio (Django) gives a file that is uploaded."""
    return re.sub(r'[^-\w.]', '', name.strip().replace(' ', '_'))


def _names_of_uploads(places: Sequence[Path]) -> dict[str, list[Path]]:
    """The images that would get each name when they are uploaded."""
    found = defaultdict(list)
    for place in places:
        for path in place.iterdir() if place.is_dir() else ():
            if path.suffix.lower() in IMAGE_SUFFIXES:
                found[_name_of_upload(path.name)].append(path)
    return found


def _image_of(task: dict, entries: CocoEntries,
              uploads: Mapping[str, Sequence[Path]], where: str) -> Path:
    """The image of a task, whose address may be one of Label Studio's.

    Args:
        uploads (Mapping[str, Sequence[Path]]): Of
            :func:`_names_of_uploads`.
    """
    for value in task.get('data', task).values():
        if not isinstance(value, str):
            continue
        parts = urlsplit(value)
        # /data/local-files/?d=folder/name.jpg
        local = re.search(r'(?:^|&)d=([^&]*)', parts.query)
        path = Path(
            unquote(local[1] if local else parts.path).replace('\\', '/'))
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            # A name with # or ? that is no address.
            path = Path(value.replace('\\', '/'))
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        given = _UPLOADED.sub('', path.name)
        if _OF_UPLOADS.search(path.as_posix()):
            given = path.name.partition('-')[2]
        same = uploads.get(given, ())
        return (entries.find(str(path.relative_to(path.anchor)))
                or entries.find(given)
                or (same[0] if len(same) == 1 else entries.folder / given))
    raise ValueError(f'{where}: expected the address of an image, got '
                     f'{sorted(task)}')
