# Licensed under the Apache License, Version 2.0.
"""Label Studio's exports, "JSON" and "JSON-MIN"."""
import re
from pathlib import Path
from typing import Any, List, Optional
from urllib.parse import unquote, urlsplit

from ..caption_sources import IMAGE_SUFFIXES
from ..coco_annotations import extent
from .entries import (
    IMAGE_FOLDERS,
    CocoEntries,
    ellipse,
    find_image,
    numbers,
    point,
    turned,
)

# Label Studio puts eight digits before the name of an uploaded file.
_UPLOADED = re.compile(r'^[0-9a-f]{8}-')
# Where a region has its classes; <Labels> beside <Rectangle> or <Polygon>
# writes the last.
_LABELS = ('rectanglelabels', 'polygonlabels', 'ellipselabels', 'labels')
# One of them tells that <Labels> are those of a box, polygon or ellipse.
_SHAPES = ('height', 'points', 'radiusX')
_NO_BOXES = ('rle', 'brushlabels', 'keypointlabels', 'vectorlabels')


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
    them. A region of several classes is a box of each.

    Raises:
        ValueError: If a task names no image, or a region is none; the message
            names it.
    """
    entries = CocoEntries(folder)
    for number, task in enumerate(tasks):
        where = f'{file}: [{number}]'
        regions = _regions(task, where)
        if regions is None:
            entries.left_out.append(('tasks that nobody has labelled', where))
            continue
        image = entries.image(_image_of(task, folder, where))
        for place, region in enumerate(regions):
            inner = f'{where}: region {place}'
            key = next((key for key in _LABELS if region.get(key)), None)
            shaped = key != 'labels' or set(_SHAPES) & set(region)
            if not shaped or set(_NO_BOXES) & set(region):
                entries.left_out.append(('regions that are no boxes', inner))
            elif key is not None:
                labels = region[key]
                box = _box(region, inner)
                for label in [labels] if isinstance(labels, str) else labels:
                    entries.box(image, str(label), box)
    return entries


def _regions(task: dict, where: str) -> Optional[List[dict]]:
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
            sides = {
                key: result.get(key)
                for key in ('original_width', 'original_height')
            }
            regions.append({**value, **sides})
    return regions


def _objects(holder: dict, key: str, where: str) -> List[dict]:
    """A list of objects, which may be missing."""
    value = holder.get(key) or []
    if not isinstance(value, list) or not all(
            isinstance(part, dict) for part in value):
        raise ValueError(f'{where}: key {key!r}: expected a list of objects')
    return value


def _box(region: dict, where: str) -> List[float]:
    """The box (x, y, width, height) of a region, in pixels."""
    across, down = (
        value / 100 for value in
        numbers([region.get('original_width'),
                 region.get('original_height')],
                f'{where}: original_width, original_height'))
    if 'points' in region:
        points = [point(pair, where) for pair in region['points']]
        return extent([(x * across, y * down) for x, y in points])
    sides = ('radiusX', 'radiusY') if 'radiusX' in region else ('width',
                                                                'height')
    x, y, width, height = numbers(
        [region.get(key) for key in ('x', 'y', *sides)], where)
    box = [x * across, y * down, width * across, height * down]
    degrees, = numbers([region.get('rotation') or 0], where)
    if 'radiusX' in region:
        return ellipse(box, degrees)
    return turned(box, degrees, around=box[:2])


def _image_of(task: dict, folder: Path, where: str) -> Path:
    """The image of a task, whose address may be one of Label Studio's."""
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
        places = [folder, *(folder / name for name in IMAGE_FOLDERS)]
        return (find_image(str(path.relative_to(path.anchor)), places)
                or find_image(given, places) or folder / given)
    raise ValueError(f'{where}: expected the address of an image, got '
                     f'{sorted(task)}')
