# Licensed under the Apache License, Version 2.0.
"""Pictures of region-text samples: a mosaic beside the texts of its tiles."""
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import get_box_tensor
from PIL import Image, ImageDraw
from torch import nn

from mmdet_clim.models.objectives import BaseRegionObjective, TilesAlone

from .canvas import (
    BLACK,
    COLOURS,
    WHITE,
    Colour,
    draw_dashed_box,
    draw_label,
    enlarge,
    font,
    to_rgb,
    wrap_text,
)

#: Pixels of the picture between the edges of composed regions.
COMPOSED_STEP = 8
COMPOSED_COLOURS: tuple[Colour, ...] = (WHITE, (255, 240, 80), (120, 255, 160),
                                        (255, 160, 230))


def draw_mosaic(inputs: torch.Tensor,
                data_sample: DetDataSample,
                class_names: Sequence[str] | None = None,
                composed: torch.Tensor | None = None,
                side: int = 960) -> np.ndarray:
    """Draw a packed mosaic as the model gets it, with its texts.

    The mosaic is on the left with a numbered box around each tile. On the
    right is a page of the same grid: the cell of a tile holds its image id,
    captions and tags. A plain captioned image is a mosaic of one tile.

    Args:
        inputs (Tensor): uint8, shape (3, H, W), BGR.
        data_sample (DetDataSample): What ``PackRegionTextInputs`` packed:
            ``gt_instances.bboxes`` (K, 4) in xyxy pixels of ``inputs`` and
            the metainfo ``mosaic_grid``, ``captions``, ``tags``,
            ``image_ids``.
        class_names (list[str], optional): Names of the tags. Defaults to
            None, which writes their indices.
        composed (Tensor, optional): Composed regions, shape (M, 4), xyxy
            pixels of ``inputs``, drawn dashed, each some pixels inside of its
            place so that edges of several can be told apart. Defaults to
            None.
        side (int): The longer side of the mosaic in the picture, in pixels.
            Defaults to 960.

    Returns:
        np.ndarray: uint8 RGB picture, twice as wide as the enlarged mosaic.

    Raises:
        ValueError: If the metainfo lacks a key, the counts of boxes and texts
            differ, or a tag is not an index into ``class_names``.
    """
    texts = _tile_texts(data_sample, class_names)
    boxes = get_box_tensor(data_sample.gt_instances.bboxes).reshape(-1, 4)
    rows, columns = data_sample.mosaic_grid
    if not len(boxes) == len(texts) == rows * columns:
        raise ValueError(
            f'mosaic_grid {(rows, columns)}: expected {rows * columns} tiles, '
            f'got {len(boxes)} boxes and {len(texts)} captions')
    mosaic, factor = enlarge(to_rgb(inputs), side)
    draw = ImageDraw.Draw(mosaic)
    tiles = [(str(index + 1), box, COLOURS[index % len(COLOURS)])
             for index, box in enumerate((boxes * factor).tolist())]
    for _, box, colour in tiles:
        draw.rectangle(_drawable(box), outline=colour, width=4)
    if composed is not None:
        for index, box in enumerate(
            (composed.reshape(-1, 4) * factor).tolist()):
            _draw_composed(draw, box, COMPOSED_STEP * index, index)
    for number, box, colour in tiles:
        draw_label(draw, (box[0], box[1] + 27), number, 20, colour)
    page = _text_page(mosaic.size, (rows, columns), texts)
    picture = Image.new('RGB', (2 * mosaic.width, mosaic.height), WHITE)
    picture.paste(mosaic, (0, 0))
    picture.paste(page, (mosaic.width, 0))
    return np.asarray(picture)


def composed_boxes(objectives: Iterable[nn.Module],
                   data_sample: DetDataSample) -> torch.Tensor:
    """Draw the rectangles of several tiles as objectives do in training.

    The objectives' own code draws them, from torch's random generator. Where
    one would take proposals, the rectangle is that of the tile boxes. Those
    that compose none are not asked: they may read regions to choose them.

    Args:
        objectives (Iterable[nn.Module]): Of the sample's branch. Those that
            choose no regions, such as ``GroundingObjective``, have none.
        data_sample (DetDataSample): A packed mosaic.

    Returns:
        Tensor: Shape (M, 4), xyxy pixels of the mosaic, each box once.
    """
    context = TilesAlone([data_sample])
    found = [
        objective.sample(context.tiles, context.stages[0]).composed
        for objective in objectives
        if isinstance(objective, BaseRegionObjective)
        and objective.num_compositions
    ]
    return torch.cat([context.tiles.boxes[0, :0], *found]).unique(dim=0)


def _draw_composed(draw: ImageDraw.ImageDraw, box: Sequence[float],
                   inset: float, index: int) -> None:
    """A dashed rectangle, as far inside of its box as there is room."""
    x1, y1, x2, y2 = box
    inset = min(inset, (x2 - x1) / 2, (y2 - y1) / 2)
    inner = (x1 + inset, y1 + inset, x2 - inset, y2 - inset)
    draw_dashed_box(draw, inner, BLACK, 6)
    draw_dashed_box(draw, inner, COMPOSED_COLOURS[index % 4], 3)


def _tile_texts(
        data_sample: DetDataSample,
        class_names: Sequence[str] | None) -> list[tuple[str, list, str]]:
    """Head, captions and tags of each tile."""
    for key in ('mosaic_grid', 'captions', 'tags', 'image_ids'):
        if key not in data_sample:
            raise ValueError(
                f'data_sample: a region-text sample has {key!r} in its '
                f'metainfo, got {sorted(data_sample.metainfo_keys())}')
    texts = []
    for index, (captions, tags, image_id) in enumerate(
            zip(data_sample.captions, data_sample.tags, data_sample.image_ids),
            1):
        wrong = [
            t for t in tags
            if class_names is not None and not 0 <= t < len(class_names)
        ]
        if wrong:
            raise ValueError(f'tags: {wrong} are not indices into the '
                             f'{len(class_names or ())} class names')
        names = [
            str(t) if class_names is None else class_names[t] for t in tags
        ]
        texts.append((f'{index}  image {image_id}', list(captions),
                      'tags: ' + (', '.join(names) or 'none')))
    return texts


def _text_page(size: tuple[int, int], grid: tuple[int, int],
               texts: Sequence[tuple[str, list, str]]) -> Image.Image:
    """A page of the mosaic's size and grid that holds the texts."""
    page = Image.new('RGB', size, WHITE)
    draw = ImageDraw.Draw(page)
    rows, columns = grid
    width, height = size[0] / columns, size[1] / rows
    for index, (head, captions, tags) in enumerate(texts):
        left = (index % columns) * width
        top = (index // columns) * height
        draw.rectangle((left, top, left + width - 1, top + height - 1),
                       outline=(190, 190, 190))
        _write_cell(draw, (left + 8, top + 6, width - 16, height - 12), head,
                    captions, tags, COLOURS[index % len(COLOURS)])
    return page


def _write_cell(draw: ImageDraw.ImageDraw, cell: tuple[float, float, float,
                                                       float], head: str,
                captions: Sequence[str], tags: str, colour: Colour) -> None:
    """Write the texts of a tile at the largest size that fits its cell."""
    left, top, width, height = cell
    size, lines = 24, []
    for size in (24, 21, 18, 16, 14, 13):
        lines = [(line, colour) for line in wrap_text(head, size, width)]
        for caption in captions:
            lines += [(line, BLACK)
                      for line in wrap_text(f'“{caption}”', size, width)]
        lines += [(line, (90, 90, 90))
                  for line in wrap_text(tags, size, width)]
        if len(lines) * size * 1.3 <= height:
            break
    room = max(1, int(height / (size * 1.3)))
    if len(lines) > room:
        lines = [*lines[:room - 1], ('…', BLACK)]
    for number, (line, line_colour) in enumerate(lines):
        draw.text((left, top + number * size * 1.3), line, line_colour,
                  font(size))


def _drawable(box: Sequence[float]) -> tuple[float, float, float, float]:
    """A box inside of which PIL can draw, also if it is empty."""
    x1, y1, x2, y2 = box
    return x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)
