# Licensed under the Apache License, Version 2.0.
"""Pictures side by side, with headings."""
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw

from .canvas import BLACK, WHITE, font, wrap_text

MARGIN = 6


def picture_grid(rows: Sequence[Sequence[np.ndarray]],
                 columns: Sequence[str],
                 row_names: Sequence[str],
                 side: int = 224) -> Image.Image:
    """A table of pictures.

    Args:
        rows (Sequence[Sequence[ndarray]]): Pictures (h, w, 3), uint8, RGB, of
            any sizes; as many in each row as there are columns.
        columns (Sequence[str]): Heads of the columns.
        row_names (Sequence[str]): Names of the rows.
        side (int): Longest side of a picture in pixels.

    Returns:
        Image: The table.

    Raises:
        ValueError: If a row has another number of pictures than there are
            columns, or there are no pictures.
    """
    lengths = [len(row) for row in rows]
    if not rows or not columns or set(lengths) != {len(columns)} \
            or len(row_names) != len(rows):
        raise ValueError(
            f'rows: expected {len(row_names)} rows of {len(columns)} '
            f'pictures, got {lengths}')
    size = max(11, side // 16)
    heads = [wrap_text(head, size, side) for head in columns]
    names = [wrap_text(name, size, side // 2) for name in row_names]
    left = side // 2 + MARGIN if any(names) else 0
    top = max(map(len, heads)) * (size + 3) + MARGIN
    pictures = [[_fit(picture, side) for picture in row] for row in rows]
    heights = [max(picture.shape[0] for picture in row) for row in pictures]
    canvas = Image.new('RGB', (left + len(columns) * (side + MARGIN),
                               top + sum(heights) + MARGIN * len(rows)), WHITE)
    draw = ImageDraw.Draw(canvas)
    for index, lines in enumerate(heads):
        _write(draw, (left + index * (side + MARGIN), 2), lines, size)
    for row, height, lines in zip(pictures, heights, names):
        _write(draw, (2, top + 2), lines, size)
        for index, picture in enumerate(row):
            canvas.paste(
                Image.fromarray(picture),
                (left + index * (side + MARGIN), top))
        top += height + MARGIN
    return canvas


def _fit(picture: np.ndarray, side: int) -> np.ndarray:
    """Scale so that the longer side is ``side``; small maps stay blocks."""
    height, width = picture.shape[:2]
    factor = side / max(height, width)
    shape = max(1, round(width * factor)), max(1, round(height * factor))
    how = cv2.INTER_NEAREST if factor > 1 else cv2.INTER_AREA
    return cv2.resize(picture, shape, interpolation=how)


def _write(draw: ImageDraw.ImageDraw, corner, lines: list[str],
           size: int) -> None:
    for number, line in enumerate(lines):
        draw.text((corner[0], corner[1] + number * (size + 3)), line, BLACK,
                  font(size))
