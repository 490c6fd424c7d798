# Licensed under the Apache License, Version 2.0.
"""CVAT's own layout, "CVAT for images 1.1": one XML for all images."""
from pathlib import Path
from xml.etree.ElementTree import Element

from .entries import CocoEntries, extent, numbers


def read_cvat(file: Path, root: Element, folder: Path) -> CocoEntries:
    """Read an export; polygons count as the boxes around them.

    Args:
        root (Element): What it holds, ``<annotations>``.

    Raises:
        ValueError: If something is missing, or it is an export of a video.
    """
    if root.find('track') is not None:
        raise ValueError(f'{file}: expected an export as "CVAT for images", '
                         'got one for video, with <track>')
    names = [
        label.text.strip() for label in root.findall('meta//label/name')
        if label.text
    ]
    entries = CocoEntries(folder, names)
    for image in root.findall('image'):
        name = _given(image, 'name', f'{file}: image')
        where = f'{file}: image {name!r}'
        width, height = numbers(
            [image.get('width', '0'),
             image.get('height', '0')], where)
        number = entries.image(folder / name, (int(width), int(height)))
        for box in image.findall('box'):
            left, top, right, bottom = numbers(
                [box.get(key) for key in ('xtl', 'ytl', 'xbr', 'ybr')],
                f'{where}: box')
            entries.box(number, _given(box, 'label', where),
                        [left, top, right - left, bottom - top])
        for shape in image.findall('polygon'):
            points = [
                numbers(point.split(','), f'{where}: polygon')
                for point in _given(shape, 'points', where).split(';')
            ]
            entries.box(number, _given(shape, 'label', where), extent(points))
    return entries


def _given(element: Element, key: str, where: str) -> str:
    """An attribute, which has to be there."""
    value = element.get(key)
    if not value:
        raise ValueError(f'{where}: expected {key!r} in <{element.tag}>, got '
                         f'{sorted(element.keys())}')
    return value
