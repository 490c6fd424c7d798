# Licensed under the Apache License, Version 2.0.
"""Colours of classes."""
import colorsys
from typing import List, Tuple


def class_palette(count: int) -> List[Tuple[int, int, int]]:
    """RGB colours, far apart in hue for neighbouring classes.

    Args:
        count (int): The number of classes.
    """
    golden_ratio = 0.618033988749895
    colours = []
    for number in range(count):
        hue, saturation = number * golden_ratio % 1, 0.55 + number % 3 * 0.2
        rgb = colorsys.hsv_to_rgb(hue, saturation, 0.95)
        colours.append(tuple(round(255 * part) for part in rgb))
    return colours
