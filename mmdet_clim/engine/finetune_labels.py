# Licensed under the Apache License, Version 2.0.
"""Boxes that a detector proposes for one's captioned images."""
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

#: Gives ``labels``, ``scores`` and ``bboxes`` (xyxy pixels) of an image file.
Find = Callable[[str], Mapping[str, Sequence]]


def propose_labels(captioned: Mapping,
                   folder: Path,
                   names: Sequence[str],
                   find: Find,
                   least: float = 0.3) -> tuple[dict, list[dict]]:
    """Boxes of the classes that an image's caption or tags name.

    For a labelling tool: a COCO JSON with ``score`` in its annotations, which
    ``--boxes`` takes again when somebody has looked through it.

    Args:
        captioned (Mapping): ``images`` with ``pos_category_ids``, and
            ``categories``, as ``prepare_image_text`` writes them.
        folder (Path): Folder of the images.
        names (Sequence[str]): The classes that labels of ``find`` index.
        find (Callable): The detector.
        least (float): Least score of a box.

    Returns:
        tuple[dict, list[dict]]: The COCO JSON, with every image that can be
        read, and of each class ``name``, ``named`` (images that name it),
        ``found`` (those of them with a box of it) and ``boxes``.
    """
    known = {c['id']: c['name'] for c in captioned['categories']}
    ids = {name: number for number, name in enumerate(names, 1)}
    images: list[dict] = []
    annotations: list[dict] = []
    named: Counter = Counter()
    found: Counter = Counter()
    boxes: Counter = Counter()
    for entry in captioned['images']:
        wanted = {known[i] for i in entry.get('pos_category_ids', ())}
        try:
            predicted = find(str(folder / entry['file_name']))
        except (OSError, ValueError):
            # Gone since the captions were prepared, which counted others.
            continue
        height, width = predicted['ori_shape']
        image = dict(
            id=len(images) + 1,
            file_name=entry['file_name'],
            width=int(width),
            height=int(height))
        images.append(image)
        here = set()
        for label, score, box in zip(predicted['labels'], predicted['scores'],
                                     predicted['bboxes']):
            name = names[label]
            x1, y1, x2, y2 = _clipped(box, width, height)
            if name not in wanted or score < least or x2 <= x1 or y2 <= y1:
                continue
            here.add(name)
            boxes[name] += 1
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image['id'],
                    category_id=ids[name],
                    bbox=[x1, y1, round(x2 - x1, 2),
                          round(y2 - y1, 2)],
                    area=round((x2 - x1) * (y2 - y1), 2),
                    iscrowd=0,
                    segmentation=[],
                    score=round(float(score), 4)))
        named.update(wanted)
        found.update(here)
    content = dict(
        info=dict(description='proposed by a detector, not looked through; '
                  f'score of at least {least:g}'),
        licenses=[],
        images=images,
        categories=[
            dict(id=number, name=name, supercategory='')
            for name, number in ids.items()
        ],
        annotations=annotations)
    counts = [
        dict(
            name=name, named=named[name], found=found[name], boxes=boxes[name])
        for name in names
    ]
    return content, counts


def _clipped(box: Sequence[float], width: int, height: int) -> list[float]:
    """A box in its image, in hundredths of pixels as COCO has them."""
    limits = (width, height, width, height)
    return [
        round(min(max(float(side), 0.), limit), 2)
        for side, limit in zip(box, limits)
    ]
