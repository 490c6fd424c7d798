# Licensed under the Apache License, Version 2.0.
from typing import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdet_clim.registry import MODELS

from ..maps import resized_map


@MODELS.register_module()
class FusedMap(BaseModule):
    """All maps of a backbone as one, for detectors that have to be cheap.

    Each map is normalised over its channels, resized to the stride of one of
    them, and the channels of all are mixed by one 1x1 convolution. A region
    read from it has seen every depth of the backbone, which for a frozen one
    holds more of what an object is than an FPN trained on few boxes does.

    Args:
        in_channels (Sequence[int]): Channels of each map, finest first.
        out_channels (int): Channels of the one map.
        level (int): Whose stride it has, counted from 0.

    Raises:
        ValueError: If there is no such map.
    """

    def __init__(self,
                 in_channels: Sequence[int],
                 out_channels: int,
                 level: int = 0,
                 init_cfg: dict | None = None) -> None:
        super().__init__(
            init_cfg=init_cfg
            or dict(type='Xavier', layer='Conv2d', distribution='uniform'))
        if not 0 <= level < len(in_channels):
            raise ValueError(f'level: expected 0 to {len(in_channels) - 1}, '
                             f'got {level}')
        self.level = level
        # One group: over all channels and positions of an image.
        self.norms = nn.ModuleList(nn.GroupNorm(1, c) for c in in_channels)
        self.mix = nn.Conv2d(sum(in_channels), out_channels, 1)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor]:
        """Maps (N, C, h, w) to one map, in a tuple as necks have it."""
        grid = tuple(maps[self.level].shape[-2:])
        fused = [
            resized_map(norm(m), grid) for norm, m in zip(self.norms, maps)
        ]
        return (self.mix(torch.cat(fused, 1)).relu(), )
