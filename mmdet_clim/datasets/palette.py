# Licensed under the Apache License, Version 2.0.
"""A colour for each class."""
import colorsys
from collections.abc import Sequence

from mmdet_clim.checks import check_range

# Hues of neighbouring classes are far apart.
GOLDEN = 0.618033988749895


def class_palette(
    count: int,
    first: Sequence[Sequence[int]] = ()) -> list[tuple[int, int, int]]:
    """Colours for classes, whatever their number.

    Args:
        first (Sequence): Colours that are kept, RGB from 0 to 255; more than
            ``count`` are left as they are.

    Returns:
        list[tuple[int, int, int]]: At least ``count`` colours, the same for
        the same arguments.

    Raises:
        ValueError: If ``count`` is negative.
    """
    check_range(0, count=count)
    colours = [(int(red), int(green), int(blue)) for red, green, blue in first]
    for number in range(len(colours), count):
        hue, saturation = number * GOLDEN % 1, 0.55 + number % 3 * 0.2
        red, green, blue = colorsys.hsv_to_rgb(hue, saturation, 0.95)
        colours.append(
            (round(255 * red), round(255 * green), round(255 * blue)))
    return colours
