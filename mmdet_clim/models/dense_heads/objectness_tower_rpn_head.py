# Licensed under the Apache License, Version 2.0.
from typing import Tuple

from mmdet.models.dense_heads import RPNHead
from torch import Tensor, nn

from mmdet_clim.registry import MODELS


@MODELS.register_module()
class ObjectnessTowerRPNHead(RPNHead):
    """mmdet's RPN, whose scores come from a small tower of their own.

    A convolution, ReLU and the layer of the anchors, on detached features:
    what is an object is learned from the base classes alone, and does not
    shape the features (REFERENCE.md, section 3: BARON with an FPN).
    """

    rpn_cls: nn.Module

    def _init_layers(self) -> None:
        super()._init_layers()
        width = self.feat_channels
        self.rpn_cls = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), self.rpn_cls)

    def forward_single(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Scores and box deltas of one level, (N, A, H, W), (N, 4A, H, W)."""
        x = self.rpn_conv(x).relu()
        return self.rpn_cls(x.detach()), self.rpn_reg(x)
