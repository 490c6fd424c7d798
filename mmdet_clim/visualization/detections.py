# Licensed under the Apache License, Version 2.0.
"""Pictures of boxes: one sample, or several models beside the truth."""
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from PIL import Image, ImageDraw

from .canvas import (
    BLACK,
    COLOURS,
    WHITE,
    draw_dashed_box,
    draw_label,
    enlarge,
    font,
    wrap_text,
)

BASE_COLOUR, NOVEL_COLOUR = COLOURS[0], COLOURS[1]


def draw_boxes(image: np.ndarray,
               instances: InstanceData,
               class_names: Sequence[str],
               novel_names: Collection[str] = (),
               score_thr: float = 0.3,
               side: int = 640) -> np.ndarray:
    """Draw boxes with class names, and scores where there are some.

    Boxes of base classes are blue, those of novel classes orange; wrong ones
    are dashed.

    Args:
        image (np.ndarray): uint8 RGB, shape (H, W, 3).
        instances (InstanceData): ``bboxes`` (N, 4) in xyxy pixels of
            ``image``, ``labels`` (N,), for detections ``scores`` (N,), and
            ``correct`` (N,), bool, where it is known.
        class_names (list[str]): Class names in label order.
        novel_names (list[str]): The novel ones among them. Defaults to ().
        score_thr (float): Detections that score less are left out.
            Defaults to 0.3.
        side (int): The longer side of the picture in pixels.
            Defaults to 640.

    Returns:
        np.ndarray: uint8 RGB picture.

    Raises:
        ValueError: If a label is not an index into ``class_names``.
    """
    picture, factor = enlarge(image, side)
    draw = ImageDraw.Draw(picture)
    boxes = get_box_tensor(instances.bboxes).reshape(-1, 4).float() * factor
    labels = instances.labels.tolist()
    wrong = [x for x in labels if not 0 <= x < len(class_names)]
    if wrong:
        raise ValueError(f'labels: {wrong} are not indices into the '
                         f'{len(class_names)} class names')
    scores = instances.get('scores', None)
    order = list(range(len(labels)))
    if scores is not None:
        # the best first: its label gets the place it wants
        order = [
            i for i in scores.argsort(descending=True).tolist()
            if scores[i] >= score_thr
        ]
    correct = instances.get('correct', None)
    text_size = max(13, side // 34)
    width = max(2, side // 200)
    for i in order:
        x1, y1, x2, y2 = boxes[i].tolist()
        box = (x1, y1, max(x1, x2), max(y1, y2))
        colour = _colour(class_names[labels[i]], novel_names)
        if correct is None or correct[i]:
            draw.rectangle(box, outline=colour, width=width)
        else:
            draw_dashed_box(draw, box, colour, width)
    taken: list[tuple] = []
    for i in order:
        name = class_names[labels[i]]
        text = name if scores is None else f'{name} {100 * scores[i]:.0f}'
        taken.append(
            draw_label(draw, (boxes[i, 0].item(), boxes[i, 1].item()), text,
                       text_size, _colour(name, novel_names), taken))
    return np.asarray(picture)


def draw_detections(images: Sequence[np.ndarray],
                    ground_truth: Sequence[InstanceData] | None,
                    detections: Mapping[str, Sequence[InstanceData]],
                    class_names: Sequence[str],
                    novel_names: Collection[str] = (),
                    side: int = 420,
                    note: str = '') -> np.ndarray:
    """Draw what several models find in the same images.

    One row per image: the ground truth, if any, then one column per model.

    Args:
        images (list[np.ndarray]): uint8 RGB, shape (H, W, 3) each.
        ground_truth (list[InstanceData], optional): ``bboxes`` and ``labels``
            of each image, xyxy pixels of the image.
        detections (dict[str, list[InstanceData]]): Name of a model ->
            ``bboxes``, ``labels``, ``scores`` and, where it is known,
            ``correct`` of each image, likewise. All are drawn.
        class_names (list[str]): Class names in label order.
        novel_names (list[str]): The novel ones among them. Defaults to ().
        side (int): The longer side of one image in the picture, in pixels.
            Defaults to 420.
        note (str): What the reader should know, for the legend.

    Returns:
        np.ndarray: uint8 RGB picture.

    Raises:
        ValueError: If there is no image, or the counts differ.
    """
    columns = dict(detections)
    if ground_truth is not None:
        columns = {'ground truth': ground_truth, **columns}
    if not images:
        raise ValueError('images: expected at least one, got none')
    for name, instances in columns.items():
        if len(instances) != len(images):
            raise ValueError(f'{name}: expected {len(images)} items, one per '
                             f'image, got {len(instances)}')
    cells = [[
        Image.fromarray(
            draw_boxes(image, instances[row], class_names, novel_names, 0.,
                       side)) for instances in columns.values()
    ] for row, image in enumerate(images)]

    gap, size = 8, 20
    heads = [wrap_text(name, size, side) for name in columns]
    head_height = max(map(len, heads)) * (size + 6) + gap
    heights = [max(cell.height for cell in row) for row in cells]
    legend_height = size + 2 * gap
    picture = Image.new('RGB',
                        (len(columns) * (side + gap) + gap, head_height +
                         legend_height + sum(height + gap
                                             for height in heights)), WHITE)
    draw = ImageDraw.Draw(picture)
    for column, lines in enumerate(heads):
        for number, line in enumerate(lines):
            draw.text(
                (gap + column * (side + gap), gap / 2 + number * (size + 6)),
                line, BLACK, font(size))
    top = head_height
    for row, height in zip(cells, heights):
        for column, cell in enumerate(row):
            picture.paste(cell, (gap + column * (side + gap), top))
        top += height + gap
    left: float = gap
    for text, colour in (('base class', BASE_COLOUR), ('novel class',
                                                       NOVEL_COLOUR)):
        box = draw_label(draw, (left, top + size + gap), text, size - 2,
                         colour)
        left = box[2] + gap
    draw.text((left + gap, top + size / 2 + gap / 2),
              note,
              BLACK,
              font(size - 2),
              anchor='lm')
    return np.asarray(picture)


def _colour(name: str, novel_names: Collection[str]):
    return NOVEL_COLOUR if name in novel_names else BASE_COLOUR
