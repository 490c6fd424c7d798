# Licensed under the Apache License, Version 2.0.
"""Old words that the original detector finds, to be learned again."""
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData

from mmdet_clim.datasets.box_formats import OwnBoxes
from mmdet_clim.datasets.coco_annotations import image_file_name

from .finetune_keeping import KeptWords

#: Boxes of the user's and of the original's that are of one object.
SAME_OBJECT = 0.5


def replayed_boxes(kept: KeptWords, captions: Mapping, folder: Path,
                   given: OwnBoxes | None, score: float) -> dict:
    """Have the original detector box the old words in images.

    What it does not know it takes for something that it knows, a cow for a
    horse. So where a caption names a new word, it is believed those old words
    alone that the caption names too.

    Args:
        kept (KeptWords): With the original detector.
        captions (dict): As ``prepare_image_text`` writes them, with
            categories in the order of ``kept.names``.
        folder (Path): Of the captioned images.
        given (OwnBoxes, optional): The user's boxes. They stay; on their
            images the original looks for old words too, that are no
            background there.
        score (float): Least score of a box.

    Returns:
        dict: As a COCO JSON holds it, with the categories of
        ``kept.names``, and file names below ``/``.
    """
    number = {name: i for i, name in enumerate(kept.names)}
    old = {number[name] for name in kept.old}
    new = {number[name] for name in kept.new} - old
    entries: dict[str, dict] = {}
    boxes: dict[str, list[dict]] = {}
    believed: dict[str, set[int]] = {}
    label = {c['id']: i for i, c in enumerate(captions['categories'])}
    for image in captions['images']:
        named = {label[tag] for tag in image['pos_category_ids']}
        if named & new:
            believed[_path(folder, image)] = named & old
    for folder_of, found in ((folder, captions['images']),
                             *([(given.images,
                                 given.content['images'])] if given else [])):
        for image in found:
            path = _path(folder_of, image)
            entries.setdefault(
                path,
                dict(
                    id=len(entries),
                    file_name=path.lstrip('/'),
                    width=image['width'],
                    height=image['height']))
            boxes.setdefault(path, [])
    if given is not None:
        _add_given(given, number, boxes)
    ordered = list(entries)
    looked_at = kept.detect(kept.original, [entries[path] for path in ordered],
                            Path('/'))
    annotations: list[dict] = []
    for path, detections in zip(ordered, looked_at):
        mine = boxes[path]
        mine += _new_boxes(detections, mine, believed.get(path, old), score)
        for box in mine:
            x, y, w, h = box['bbox']
            annotations.append(
                dict(
                    box,
                    id=len(annotations) + 1,
                    image_id=entries[path]['id'],
                    area=w * h,
                    iscrowd=box.get('iscrowd', 0)))
    return dict(
        images=list(entries.values()),
        annotations=annotations,
        categories=[
            dict(id=i, name=name) for i, name in enumerate(kept.names)
        ])


def replayed_tags(captions: Mapping, replayed: Mapping, folder: Path) -> dict:
    """Captions whose tags name what the original found, too.

    Args:
        captions (dict): As ``prepare_image_text`` writes them, with the
            categories of ``replayed`` in the same order.
        replayed (dict): Of :func:`replayed_boxes`.
        folder (Path): Of the captioned images.

    Returns:
        dict: Like ``captions``.
    """
    place = {
        f'/{image["file_name"]}': image['id']
        for image in replayed['images']
    }
    found: dict[int, set] = {}
    for box in replayed['annotations']:
        found.setdefault(box['image_id'], set()).add(box['category_id'])
    ids = [category['id'] for category in captions['categories']]
    images = []
    for image in captions['images']:
        more = {
            ids[label]
            for label in found.get(place[_path(folder, image)], ())
        }
        images.append(
            dict(
                image,
                pos_category_ids=sorted({*image['pos_category_ids'], *more})))
    return dict(captions, images=images)


def _path(folder: Path, image: Mapping) -> str:
    return str((folder / image_file_name(image)).absolute())


def _add_given(given: OwnBoxes, number: Mapping[str, int],
               boxes: Mapping[str, list[dict]]) -> None:
    """The user's boxes of the classes that are trained."""
    content = given.content
    names = {c['id']: c['name'] for c in content['categories']}
    paths = {
        image['id']: _path(given.images, image)
        for image in content['images']
    }
    for box in content['annotations']:
        label = number.get(names[box['category_id']])
        if label is not None:
            boxes[paths[box['image_id']]].append(
                dict(
                    bbox=box['bbox'],
                    category_id=label,
                    iscrowd=box.get('iscrowd', 0)))


def _new_boxes(found: InstanceData, given: Sequence[dict], believed: set[int],
               score: float) -> list[dict]:
    """Detections of some words on objects that have no box yet."""
    known = torch.tensor([box['bbox'] for box in given]).reshape(-1, 4)
    known = torch.cat([known[:, :2], known[:, :2] + known[:, 2:]], 1)
    free = (bbox_overlaps(found.bboxes.float(), known.float())
            < SAME_OBJECT).all(1)
    chosen = []
    for box, label, sure, is_free in zip(found.bboxes.tolist(),
                                         found.labels.tolist(),
                                         found.scores.tolist(), free.tolist()):
        x1, y1, x2, y2 = box
        if (label in believed and sure >= score and is_free and x2 > x1
                and y2 > y1):
            chosen.append(
                dict(bbox=[x1, y1, x2 - x1, y2 - y1], category_id=label))
    return chosen
