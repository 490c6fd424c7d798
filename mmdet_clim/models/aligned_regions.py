# Licensed under the Apache License, Version 2.0.
"""Parts of maps or images, as mmcv's RoIAlign cuts them out."""
from typing import Tuple, Union

from mmcv.ops import roi_align
from torch import Tensor


def aligned_regions(maps: Tensor,
                    rois: Tensor,
                    size: Union[int, Tuple[int, int]] = 1,
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
    return roi_align(maps.contiguous(),
                     rois.to(maps).contiguous(), size, 1 / stride, 0, 'avg',
                     True)
