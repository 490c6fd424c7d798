# Licensed under the Apache License, Version 2.0.
"""Label Studio's exports, "JSON" and "JSON-MIN"."""
import math
import re
from pathlib import Path
from typing import Any, List, Optional
from urllib.parse import parse_qs, unquote, urlsplit

from ..caption_sources import IMAGE_SUFFIXES
from .entries import CocoEntries, extent, numbers

# Label Studio puts eight digits before the name of an uploaded file.
_UPLOADED = re.compile(r'^[0-9a-f]{8}-')


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
    Rectangles that are turned and polygons count as the boxes around them.

    Raises:
        ValueError: If a task names no image, or a region is none; the message
            names it.
    """
    entries = CocoEntries(folder)
    for number, task in enumerate(tasks):
        where = f'{file}: [{number}]'
        regions = _regions(task)
        if regions is None:
            continue
        image = entries.image(_image_of(task, folder, where))
        for place, region in enumerate(regions):
            labels = region.get('rectanglelabels') or region.get(
                'polygonlabels')
            if labels:
                entries.box(image, str(labels[0]),
                            _box(region, f'{where}: region {place}'))
    return entries


def _regions(task: dict) -> Optional[List[dict]]:
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
        annotation for annotation in task.get('annotations') or []
        if not annotation.get('was_cancelled')
    ]
    if not done:
        return None
    return [{
        **result.get('value', {}), 'original_width':
        result.get('original_width'),
        'original_height':
        result.get('original_height')
    } for result in done[-1].get('result', [])]


def _box(region: dict, where: str) -> List[float]:
    """The box (x, y, width, height) of a region, in pixels."""
    across, down = (
        value / 100 for value in
        numbers([region.get('original_width'),
                 region.get('original_height')],
                f'{where}: original_width, original_height'))
    if 'points' in region:
        points = [numbers(point, where) for point in region['points']]
        return extent([(x * across, y * down) for x, y in points])
    x, y, width, height = numbers(
        [region.get(key) for key in ('x', 'y', 'width', 'height')], where)
    box = [x * across, y * down, width * across, height * down]
    angle = math.radians(float(region.get('rotation') or 0))
    if not angle:
        return box
    # It is turned around its upper left corner.
    cosine, sine = math.cos(angle), math.sin(angle)
    return extent([(box[0] + u * cosine - v * sine,
                    box[1] + u * sine + v * cosine) for u in (0, box[2])
                   for v in (0, box[3])])


def _image_of(task: dict, folder: Path, where: str) -> Path:
    """The image of a task, whose address may be one of Label Studio's."""
    for value in task.get('data', task).values():
        if not isinstance(value, str):
            continue
        parts = urlsplit(value)
        # /data/local-files/?d=folder/name.jpg
        path = Path(parse_qs(parts.query).get('d', [unquote(parts.path)])[0])
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        names = [path.name, _UPLOADED.sub('', path.name)]
        # A path below the folder, from its end.
        names += [
            str(Path(*path.parts[-length:]))
            for length in range(2, len(path.parts))
        ]
        for name in names:
            if (folder / name).is_file():
                return folder / name
        return folder / names[1]
    raise ValueError(f'{where}: expected the address of an image, got '
                     f'{sorted(task)}')
