# Licensed under the Apache License, Version 2.0.
"""Maps of one backbone on one grid."""
from typing import Tuple

import torch.nn.functional as F
from torch import Tensor


def resized_map(features: Tensor, grid: Tuple[int, int]) -> Tensor:
    """A map on a coarser grid by averages, on a finer one bilinearly.

    Args:
        features (Tensor): (N, C, h, w).
        grid (tuple[int, int]): Rows and columns.

    Returns:
        Tensor: (N, C, rows, columns).
    """
    if features.shape[-2:] == tuple(grid):
        return features
    if features.shape[-2] >= grid[0] and features.shape[-1] >= grid[1]:
        return F.adaptive_avg_pool2d(features, grid)
    return F.interpolate(features, grid, mode='bilinear', align_corners=False)
