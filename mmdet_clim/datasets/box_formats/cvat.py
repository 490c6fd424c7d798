# Licensed under the Apache License, Version 2.0.
"""CVAT's own layout, "CVAT for images 1.1": one XML for all images."""
from pathlib import Path
from xml.etree.ElementTree import Element

from ..coco_annotations import extent
from .entries import CocoEntries, ellipse, numbers, point, turned

# Shapes that have no area.
_NO_BOXES = ('polyline', 'points', 'cuboid', 'skeleton')


def read_cvat(file: Path, root: Element, folder: Path) -> CocoEntries:
    """Read an export.

    Polygons, masks, ellipses and boxes that are turned count as the boxes
    around them.

    Args:
        root (Element): What it holds, ``<annotations>``.

    Raises:
        ValueError: If something is missing, or it is an export of a video.
    """
    if root.find('track') is not None:
        raise ValueError(f'{file}: expected an export as "CVAT for images '
                         '1.1", which has the boxes of tracks in each frame, '
                         'got "CVAT for video", with <track>')
    names = [
        label.text.strip() for label in root.findall('meta//label/name')
        if label.text
    ]
    entries = CocoEntries(folder, names)
    for place, image in enumerate(root.findall('image')):
        name = _given(image, 'name', f'{file}: image {place}')
        where = f'{file}: image {name!r}'
        width, height = numbers(
            [image.get('width', '0'),
             image.get('height', '0')], where)
        # As it comes with its images: by subset, where it has several.
        inner = '/'.join(filter(None, [image.get('subset'), name]))
        path = entries.find(inner) or folder / name
        number = entries.image(path, where, (int(width), int(height)))
        for order, shape in enumerate(image):
            if shape.tag in _NO_BOXES:
                entries.left_out.append((f'shapes <{shape.tag}>', where))
                continue
            inner = f'{where}: <{shape.tag}> {order}'
            box = _box(shape, inner)
            if box is not None:
                entries.box(number, _given(shape, 'label', inner), box, inner)
    return entries


def _box(shape: Element, where: str) -> list[float] | None:
    """The box (x, y, width, height) of a shape; None of other elements."""

    def read(*keys: str) -> list[float]:
        return numbers([shape.get(key) for key in keys], where)

    degrees, = numbers([shape.get('rotation', '0')], where)
    if shape.tag == 'box':
        left, top, right, bottom = read('xtl', 'ytl', 'xbr', 'ybr')
        return turned([left, top, right - left, bottom - top], degrees,
                      ((left + right) / 2, (top + bottom) / 2))
    if shape.tag == 'ellipse':
        return ellipse(read('cx', 'cy', 'rx', 'ry'), degrees)
    if shape.tag == 'mask':
        return read('left', 'top', 'width', 'height')
    if shape.tag == 'polygon':
        return extent([
            point(pair.split(','), where)
            for pair in _given(shape, 'points', where).strip(';').split(';')
        ])
    return None


def _given(element: Element, key: str, where: str) -> str:
    """An attribute, which has to be there."""
    value = element.get(key)
    if not (value and value.strip()):
        raise ValueError(f'{where}: expected {key!r} in <{element.tag}>, got '
                         f'{sorted(element.items())}')
    return value
