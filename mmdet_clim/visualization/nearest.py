# Licensed under the Apache License, Version 2.0.
"""Regions beside the texts nearest to them, and texts beside regions."""
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from .canvas import BLACK, COLOURS, WHITE, draw_label, enlarge, font, wrap_text
from .grid import picture_grid

#: What is a region's own, and what is not.
OWN, OTHER = COLOURS[2], COLOURS[1]


class ReadRegion(NamedTuple):
    """A region of an image whose captions are known.

    Args:
        image (int): Which image it is in.
        box (Tensor): Shape (4,), xyxy pixels of the picture of the image.
    """

    image: int
    box: Tensor


def best_of_images(cosines: Tensor, images: Sequence[int],
                   num: int) -> list[list[int]]:
    """The regions nearest to each text, one of each image.

    Args:
        cosines (Tensor): Shape (R, T).
        images (Sequence[int]): The image of each of the R regions.
        num (int): How many images; all there are if they are fewer.

    Returns:
        list[list[int]]: For each of the T texts, indices of regions, the
        nearest first.
    """
    found = []
    for of_text in cosines.t():
        best, seen = [], set()
        for region in of_text.argsort(descending=True, stable=True).tolist():
            if images[region] not in seen:
                seen.add(images[region])
                best.append(region)
        found.append(best[:num])
    return found


def draw_nearest_texts(pictures: Sequence[np.ndarray],
                       regions: Sequence[ReadRegion],
                       texts: Sequence[str],
                       own: Sequence[Sequence[int]],
                       cosines: Tensor,
                       num: int = 4,
                       side: int = 260) -> Image.Image:
    """One row per region: its image, and the texts nearest to it.

    Captions of the region's own image are green; the best of them stands
    below, with its place, where it is not among the nearest.

    Args:
        pictures (Sequence[ndarray]): The images, uint8, RGB.
        regions (Sequence[ReadRegion]): R regions of them.
        texts (Sequence[str]): T texts.
        own (Sequence[Sequence[int]]): Of each image, which texts are its
            captions.
        cosines (Tensor): Shape (R, T).
        num (int): Texts per region.
        side (int): Longer side of a picture in pixels.
    """
    rows = []
    for region, of_region in zip(regions, cosines):
        order = of_region.argsort(descending=True, stable=True).tolist()
        mine = set(own[region.image])
        shown = order[:num]
        left = [text for text in order if text in mine][:1]
        if not mine & set(shown):
            shown += left
        lines = [(f'{order.index(t) + 1}. {texts[t]} ({of_region[t]:.2f})',
                  OWN if t in mine else BLACK) for t in shown]
        picture = draw_region(pictures[region.image], region.box, side)
        rows.append([picture, _text_card(lines, side)])
    return picture_grid(rows, ['region', 'nearest texts (cosine)'],
                        [''] * len(rows), side)


def draw_nearest_regions(pictures: Sequence[np.ndarray],
                         regions: Sequence[ReadRegion],
                         texts: Sequence[str],
                         own: Sequence[Sequence[int]],
                         cosines: Tensor,
                         num: int = 4,
                         side: int = 200) -> Image.Image:
    """One row per text: the regions nearest to it, one of each image.

    Boxes are green in images that the text is a caption of, else orange.

    Args:
        pictures, regions, texts, own, cosines: As
            :func:`draw_nearest_texts` takes them.
        num (int): Regions per text.
        side (int): Longer side of a picture in pixels.
    """
    images = [region.image for region in regions]
    best = best_of_images(cosines, images, num)
    rows = []
    for text, of_text in enumerate(best):
        rows.append([
            draw_region(pictures[images[r]], regions[r].box, side,
                        f'{cosines[r, text]:.2f}',
                        OWN if text in own[images[r]] else OTHER)
            for r in of_text
        ])
    columns = [f'nearest {n + 1}' for n in range(len(rows[0]))]
    return picture_grid(rows, columns, list(texts), side)


def draw_region(image: np.ndarray,
                box: Tensor,
                side: int,
                label: str | None = None,
                colour: tuple[int, int, int] = OWN) -> np.ndarray:
    """An image with a box, paler outside of it.

    Args:
        image (np.ndarray): uint8, shape (H, W, 3), RGB.
        box (Tensor): Shape (4,), xyxy pixels of ``image``.
        side (int): Longer side of the picture in pixels.
        label (str, optional): Written at the top left corner.
        colour (tuple[int, int, int]): Of the box, RGB.

    Returns:
        np.ndarray: uint8, RGB.
    """
    picture, factor = enlarge(image, side)
    x1, y1, x2, y2 = (box * factor).tolist()
    pale = Image.blend(picture, Image.new('RGB', picture.size, WHITE), .55)
    inside = tuple(round(x) for x in (x1, y1, x2, y2))
    pale.paste(picture.crop(inside), inside[:2])
    draw = ImageDraw.Draw(pale)
    draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)),
                   outline=colour,
                   width=3)
    if label is not None:
        draw_label(draw, (0, 0), label, max(12, side // 14), colour)
    return np.asarray(pale)


def _text_card(lines: Sequence[tuple[str, tuple[int, int, int]]],
               side: int) -> np.ndarray:
    """Coloured texts, wrapped, on a square page, as large as they fit."""
    for size in range(max(10, side // 14), 8, -1):
        wrapped = [(line, colour) for text, colour in lines
                   for line in wrap_text(text, size, side - 8)]
        if len(wrapped) * (size + 4) <= side:
            break
    card = Image.new('RGB', (side, side), WHITE)
    draw = ImageDraw.Draw(card)
    for number, (line, colour) in enumerate(wrapped):
        draw.text((4, 2 + number * (size + 4)), line, colour, font(size))
    return np.asarray(card)
