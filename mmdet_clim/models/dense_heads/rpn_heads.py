# Licensed under the Apache License, Version 2.0.
"""mmdet's RPN head with other layers."""

from mmcv.cnn import ConvModule
from mmdet.models.dense_heads import RPNHead
from torch import Tensor, nn

from mmdet_clim.registry import MODELS


@MODELS.register_module()
class NormRPNHead(RPNHead):
    """mmdet's RPN head with a norm behind each of its convolutions.

    F-VLM's on a ResNet (REFERENCE.md, section 5). As with a norm in any
    :class:`mmcv.cnn.ConvModule`, the convolutions then have no bias.

    Args:
        norm_cfg (dict): Config of the norm.
        **kwargs: Of :class:`mmdet.RPNHead`.

    Raises:
        ValueError: If ``num_convs`` is below 2: mmdet's single convolution
            is none that a norm could follow.
    """

    rpn_conv: nn.Module

    def __init__(self, *args, norm_cfg: dict, **kwargs) -> None:
        self.norm_cfg = norm_cfg
        super().__init__(*args, **kwargs)

    def _init_layers(self) -> None:
        if self.num_convs < 2:
            raise ValueError('num_convs: NormRPNHead expects at least 2, got '
                             f'{self.num_convs}')
        super()._init_layers()
        self.rpn_conv = nn.Sequential(*[
            ConvModule(
                layer.in_channels,
                layer.out_channels,
                3,
                padding=1,
                norm_cfg=self.norm_cfg,
                inplace=False) for layer in self.rpn_conv
        ])


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

    def forward_single(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and box deltas of one level, (N, A, H, W), (N, 4A, H, W)."""
        x = self.rpn_conv(x).relu()
        return self.rpn_cls(x.detach()), self.rpn_reg(x)
