# Licensed under the Apache License, Version 2.0.
"""Weights between an original detector and what it was tuned to."""
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

#: Shares of the tuned weights that are tried where one is to be chosen.
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)


def interpolate(original: Mapping[str, Tensor], tuned: Mapping[str, Tensor],
                alpha: float) -> 'OrderedDict[str, Tensor]':
    r"""The weights :math:`\alpha\,\text{tuned}+(1-\alpha)\,\text{original}`.

    Args:
        original (Mapping[str, Tensor]): Name to weight of the detector that
            the training began with, of any floating dtype.
        tuned (Mapping[str, Tensor]): Name to weight of what it became.
        alpha (float): From 0 to 1; 1 gives ``tuned``.

    Returns:
        OrderedDict: With the names and dtypes of ``tuned``. Counters, and
        what the original has not, are those of ``tuned``.

    Raises:
        ValueError: If ``alpha`` is out of its range, or a weight has two
            shapes.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f'alpha: expected 0 to 1, got {alpha}')
    mixed = OrderedDict()
    for name, after in tuned.items():
        before = original.get(name)
        if before is None or not after.is_floating_point():
            mixed[name] = after
            continue
        if before.shape != after.shape:
            raise ValueError(
                f'{name}: expected one shape, got {tuple(before.shape)} '
                f'before and {tuple(after.shape)} after')
        value = alpha * after.float() + (1 - alpha) * before.to(after.device)
        mixed[name] = value.to(after.dtype)
    return mixed


def choose_point(curve: Sequence[Mapping[str, Any]],
                 most_lost: float) -> Mapping[str, Any]:
    """The point with the best new AP that surely loses little of the old one.

    What a few images say of a loss is uncertain: counted is not the loss on
    them, but what it is at most with some confidence.

    Args:
        curve (list[dict]): Points with ``alpha``; ``lost_at_most``, the bound
            of what is lost of the old AP50, as a fraction; and ``new_ap50``,
            None where no new class has boxes. One has ``alpha`` 0.
        most_lost (float): Points of AP50, out of 100, that may be lost.

    Returns:
        dict: One of ``curve``. Where there is no new AP, the largest
        ``alpha`` that loses little.

    Raises:
        ValueError: If there is no point of ``alpha`` 0.
    """
    # With which nothing is lost.
    kept = [
        point for point in curve if point['alpha'] == 0
        # Beyond the rounding of a fraction.
        or point['lost_at_most'] <= most_lost / 100 + 1e-9
    ]
    if not any(point['alpha'] == 0 for point in kept):
        raise ValueError('curve: expected a point of alpha 0, got none')
    return max(
        kept, key=lambda point: (point['new_ap50'] or 0.0, point['alpha']))
