# Licensed under the Apache License, Version 2.0.
"""Feature maps: their regions, and their sizes."""
import torch.nn.functional as F
from mmcv.ops import roi_align
from torch import Tensor


def aligned_regions(maps: Tensor,
                    rois: Tensor,
                    size: int | tuple[int, int] = 1,
                    stride: float = 1) -> Tensor:
    """Regions of one size, by aligned RoIAlign.

    With as many samples per cell as a region is reduced by: an average, so
    that nothing aliases.

    Args:
        maps (Tensor): Shape (N, C, H, W).
        rois (Tensor): Shape (R, 5): index of the map, then absolute xyxy
            pixels.
        size (int | tuple[int, int]): Rows and columns of each.
        stride (float): Pixels per cell of the maps.

    Returns:
        Tensor: Shape (R, C, rows, columns).
    """
    # mmcv's RoIAlign reads the memory as if it were contiguous.
    maps, rois = maps.contiguous(), rois.to(maps).contiguous()
    return roi_align(maps, rois, size, 1 / stride, 0, 'avg', True)


def resized_map(features: Tensor, grid: tuple[int, int]) -> Tensor:
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
