# Licensed under the Apache License, Version 2.0.
"""Detections of images as files for other programs."""
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmdet_clim.datasets.preparation.files import whole_file

#: Names of the two files.
JSON, COCO = 'found.json', 'found_coco.json'

#: A file's name; of an image ``width``, ``height`` and ``boxes``, each with
#: ``name``, ``score`` and ``bbox`` (xyxy pixels); of a video a list of them.
Entry = tuple[str, Any]


def write_found(folder: Path, entries: Sequence[Entry],
                names: Sequence[str]) -> list[Path]:
    """Write what was found twice: as it is, and in COCO's layout.

    Args:
        folder (Path): Gets ``found.json`` and ``found_coco.json``.
        entries (Sequence[Entry]): Of each image and video.
        names (Sequence[str]): The words that were looked for.

    Returns:
        list[Path]: Both files.
    """
    paths = [folder / JSON, folder / COCO]
    plain = [
        dict(file=name, **entry) if isinstance(entry, dict) else dict(
            file=name, frames=entry) for name, entry in entries
    ]
    for path, content in zip(paths, (plain, coco_of(entries, names))):
        with whole_file(path) as file:
            json.dump(content, file, ensure_ascii=False)
    return paths


def coco_of(entries: Sequence[Entry], names: Sequence[str]) -> dict:
    """Detections in the layout of COCO's annotations.

    Args:
        entries, names: See :func:`write_found`. A frame of a video is the
            image ``VIDEO#NUMBER``, from 0.

    Returns:
        dict: ``images``, ``categories`` in the order of the names, and
        ``annotations`` with ``bbox`` as left, top, width and height in
        pixels, and ``score``.
    """
    ids = {name: number for number, name in enumerate(names, 1)}
    images: list[dict] = []
    annotations: list[dict] = []
    for file, of in entries:
        frames = {
            file: of
        } if isinstance(of, dict) else {
            f'{file}#{number}': frame
            for number, frame in enumerate(of)
        }
        for name, entry in frames.items():
            images.append(
                dict(
                    id=len(images) + 1,
                    file_name=name,
                    width=entry['width'],
                    height=entry['height']))
            for box in entry['boxes']:
                x1, y1, x2, y2 = (
                    round(float(side), 2) for side in box['bbox'])
                width, height = round(x2 - x1, 2), round(y2 - y1, 2)
                annotations.append(
                    dict(
                        id=len(annotations) + 1,
                        image_id=len(images),
                        category_id=ids[box['name']],
                        bbox=[x1, y1, width, height],
                        area=width * height,
                        iscrowd=0,
                        score=round(float(box['score']), 4)))
    return dict(
        images=images,
        categories=[
            dict(id=number, name=name) for name, number in ids.items()
        ],
        annotations=annotations)
