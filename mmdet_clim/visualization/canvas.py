# Licensed under the Apache License, Version 2.0.
"""Text and boxes on an RGB canvas, legible at any size of the input."""
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
import torch
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

BLACK: Colour = (20, 20, 20)
WHITE: Colour = (255, 255, 255)
#: Okabe and Ito's colours, apart also for the colour-blind.
COLOURS: tuple[Colour, ...] = ((0, 114, 178), (213, 94, 0), (0, 158, 115),
                               (204, 121, 167), (230, 159, 0), (86, 180, 233),
                               (120, 94, 240), (140, 86, 75))


@lru_cache(maxsize=32)
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib, at a height in pixels."""
    return ImageFont.truetype(findfont('DejaVu Sans'), size)


def to_rgb(inputs: torch.Tensor) -> np.ndarray:
    """The image of a packed sample.

    Args:
        inputs (Tensor): uint8, shape (3, H, W), BGR as OpenCV loads it.

    Returns:
        np.ndarray: uint8, shape (H, W, 3), RGB.

    Raises:
        ValueError: If the tensor has another shape or dtype.
    """
    if inputs.ndim != 3 or inputs.shape[0] != 3 or inputs.dtype != torch.uint8:
        raise ValueError('inputs: expected a uint8 tensor (3, H, W), got '
                         f'{inputs.dtype} {tuple(inputs.shape)}')
    return np.ascontiguousarray(inputs.permute(1, 2, 0).numpy()[..., ::-1])


def enlarge(image: np.ndarray, side: int) -> tuple[Image.Image, float]:
    """Scale an image so that its longer side is ``side`` pixels.

    Args:
        image (np.ndarray): uint8, shape (H, W, 3).
        side (int): The longer side of the result in pixels.

    Returns:
        tuple[Image, float]: The image, and the factor that box coordinates
        have to be multiplied by.
    """
    height, width = image.shape[:2]
    factor = side / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    how = cv2.INTER_CUBIC if factor > 1 else cv2.INTER_AREA
    return Image.fromarray(cv2.resize(image, size, interpolation=how)), factor


def wrap_text(text: str, size: int, width: float) -> list[str]:
    """Break a text into lines that are at most ``width`` pixels wide.

    A word that is wider than a line is broken inside.

    Args:
        text (str): The text.
        size (int): Height of the font in pixels.
        width (float): Width of a line in pixels.

    Returns:
        list[str]: The lines; none for an empty text.
    """
    face = font(size)
    lines: list[str] = []
    line = ''
    for word in text.split():
        joined = f'{line} {word}' if line else word
        if face.getlength(joined) <= width:
            line = joined
            continue
        if line:
            lines.append(line)
        while len(word) > 1 and face.getlength(word) > width:
            end = len(word) - 1
            while end > 1 and face.getlength(word[:end]) > width:
                end -= 1
            lines.append(word[:end])
            word = word[end:]
        line = word
    if line:
        lines.append(line)
    return lines


def draw_label(
    draw: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    text: str,
    size: int,
    colour: Colour,
    taken: Sequence[tuple[float, float, float, float]] = ()
) -> tuple[float, float, float, float]:
    """Write a text on a filled box inside the canvas.

    Args:
        draw (ImageDraw): The canvas.
        corner (tuple[float, float]): Where the lower left corner of the label
            is wanted, in pixels; the label moves where it would leave the
            canvas or cover a taken place.
        text (str): The text.
        size (int): Height of the font in pixels.
        colour (tuple[int, int, int]): Colour of the box, RGB.
        taken (list[tuple]): Labels in xyxy pixels not to be covered, as far
            as there is room below.

    Returns:
        tuple[float, float, float, float]: The label in xyxy pixels.
    """
    canvas_width, canvas_height = draw.im.size
    width, height = font(size).getlength(text) + 6, size + 5
    left = min(max(corner[0], 0), max(0, canvas_width - width))
    top = min(max(corner[1] - height, 0), max(0, canvas_height - height))
    free = top
    while any(left < x2 and x1 < left + width and free < y2 and y1 < free +
              height for x1, y1, x2, y2 in taken):
        free += height
    if free + height <= canvas_height:
        top = free
    box = (left, top, left + width, top + height)
    draw.rectangle(box, fill=colour)
    dark = sum(c * w for c, w in zip(colour, (.299, .587, .114))) < 150
    draw.text((left + 3, top + height / 2),
              text,
              WHITE if dark else BLACK,
              font(size),
              anchor='lm')
    return box


def draw_dashed_box(draw: ImageDraw.ImageDraw, box: Sequence[float],
                    colour: Colour, width: int) -> None:
    """Draw a dashed rectangle.

    Args:
        draw (ImageDraw): The canvas.
        box (list[float]): xyxy pixels of the canvas.
        colour (tuple[int, int, int]): RGB.
        width (int): Line width in pixels.
    """
    x1, y1, x2, y2 = box
    dash = 5 * width
    for start, end, across in (((x1, y1), (x2, y1), 0), ((x1, y2), (x2, y2),
                                                         0),
                               ((x1, y1), (x1, y2), 1), ((x2, y1), (x2, y2),
                                                         1)):
        at, stop = start[across], end[across]
        while at < stop:
            here = list(start)
            there = list(start)
            here[across], there[across] = at, min(at + dash, stop)
            draw.line([*here, *there], fill=colour, width=width)
            at += 2 * dash
