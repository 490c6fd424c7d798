# Licensed under the Apache License, Version 2.0.
"""Composed regions: rectangles of several tiles of a mosaic."""
from itertools import combinations
from typing import Tuple

import torch
from torch import Tensor


def compose_tiles(grid: Tuple[int, int], num: int) -> Tensor:
    """Draw distinct rectangles of at least two tiles, of any grid.

    Both ends of each axis are drawn with replacement, single tiles rejected
    and rectangles that were drawn before too (REFERENCE.md, section 2). A
    side of several tiles has two orders of its ends, so that a rectangle is
    twice as likely for each: the first has 2.67, 3.89 and 5.33 tiles on
    average in grids of 2 x 2, 3 x 3 and 4 x 4.

    Args:
        grid (tuple[int, int]): Rows and columns of the mosaic.
        num (int): How many to draw; all there are where the grid has fewer.

    Returns:
        Tensor: Which tiles each rectangle holds, bool of shape
        (n, rows * columns), tiles in row-major order; rectangles in the order
        of their sides, not of the draws.

    Raises:
        ValueError: If a side of the grid is below 1 or ``num`` below 0.

    Example:
        >>> compose_tiles((1, 2), 4)
        tensor([[True, True]])
    """
    rows, cols = grid
    if rows < 1 or cols < 1:
        raise ValueError(f'grid: expected rows and columns >= 1, got {grid}')
    if num < 0:
        raise ValueError(f'num: expected a count >= 0, got {num}')
    rectangles = [(top, bottom, left, right)
                  for top, bottom in combinations(range(rows + 1), 2)
                  for left, right in combinations(range(cols + 1), 2)
                  if (bottom - top) * (right - left) > 1]
    orders = torch.tensor([(1 + (bottom - top > 1)) * (1 + (right - left > 1))
                           for top, bottom, left, right in rectangles])
    # Times until each is drawn first; those of greater weight come earlier.
    times = -torch.rand(len(rectangles)).log() / orders
    chosen = times.argsort()[:num].sort().values.tolist()
    members = torch.zeros(len(chosen), rows, cols, dtype=torch.bool)
    for mask, index in zip(members, chosen):
        top, bottom, left, right = rectangles[index]
        mask[top:bottom, left:right] = True
    return members.flatten(1)


def union_boxes(bboxes: Tensor, members: Tensor) -> Tensor:
    """Smallest boxes around the members of each region.

    Args:
        bboxes (Tensor): One box per tile, (K, 4) or, where the regions are of
            several images, (n, K, 4), absolute xyxy.
        members (Tensor): bool (n, K), at least one True in each row.

    Returns:
        Tensor: Shape (n, 4), absolute xyxy.
    """
    members = members.to(bboxes.device)[..., None]
    bboxes = bboxes.expand(len(members), -1, -1)
    low = bboxes[..., :2].masked_fill(~members, torch.inf).amin(1)
    high = bboxes[..., 2:].masked_fill(~members, -torch.inf).amax(1)
    return torch.cat([low, high], dim=1)
