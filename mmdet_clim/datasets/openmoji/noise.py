# Licensed under the Apache License, Version 2.0.
"""Captions that do not fit their images, as those from the web."""
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mmdet_clim.checks import check_range

from .captions import write_captions
from .scenes import Scene


@dataclass(frozen=True)
class CaptionNoise:
    """How many captioned scenes do not have their own, whole captions.

    Args:
        wrong (float): Share of the scenes with captions and tags of another.
        missing (float): Share of the scenes without captions and tags.
        partial (float): Share of those others whose captions name several
            classes; one of the classes is left out of captions and tags.

    Raises:
        ValueError: If a share is not in [0, 1], or the first two are more
            than 1 together.
    """

    wrong: float
    missing: float
    partial: float

    def __post_init__(self):
        check_range(
            0, 1, wrong=self.wrong, missing=self.missing, partial=self.partial)
        check_range(0, 1, **{'wrong + missing': self.wrong + self.missing})


def write_partial_captions(rng: np.random.Generator, scene: Scene,
                           most: int) -> list[str]:
    """Captions as if one of the classes of a scene were not there.

    Args:
        most (int): Upper bound of their number.

    Returns:
        list[str]: None of a scene of one class.
    """
    names = sorted({obj.cls.name for obj in scene.objects})
    if len(names) == 1:
        return []
    left_out = names[rng.integers(len(names))]
    others = [obj for obj in scene.objects if obj.cls.name != left_out]
    return write_captions(rng, replace(scene, objects=others), most)


def noisy_captions(
        rng: np.random.Generator, noise: CaptionNoise, own: Sequence[list],
        several: Sequence[bool],
        partial: Sequence[list]) -> list[tuple[list[str], str | None]]:
    """Captions of scenes with noise.

    Args:
        rng (np.random.Generator): Chooses the scenes.
        noise (CaptionNoise): The shares, which are met up to rounding.
        own (Sequence[list[str]]): The captions of each scene.
        several (Sequence[bool]): Whether these name several classes.
        partial (Sequence[list[str]]): Of :func:`write_partial_captions`, used
            only where the former do.

    Returns:
        list[tuple]: The captions of each scene, and which noise they have:
        'wrong', 'missing', 'partial' or None. The captions of another scene
        are those which that one has without noise.
    """
    found: list[tuple[list[str], str | None]] = [(of, None) for of in own]
    order = rng.permutation(len(own)).tolist()
    wrong = round(noise.wrong * len(own))
    missing = wrong + round(noise.missing * len(own))
    for place, scene in enumerate(order[:wrong]):
        other = order[(place + 1) % len(order)]
        found[scene] = own[other], 'wrong'
    for scene in order[wrong:missing]:
        found[scene] = [], 'missing'
    candidates = [scene for scene in order[missing:] if several[scene]]
    for scene in candidates[:round(noise.partial * len(candidates))]:
        found[scene] = partial[scene], 'partial'
    return found
