# Licensed under the Apache License, Version 2.0.
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdet_clim.registry import MODELS


@MODELS.register_module()
class MLPRegressor(BaseModule):
    """Box regression by two layers, for a head's ``reg_predictor_cfg``.

    Args:
        in_features (int): Width of the region features.
        out_features (int): Width of the box code.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        # The head sets std 0.001 on every layer of its regressor, which is
        # meant for the last one: the hidden layer would start near zero.
        super().__init__(
            init_cfg=dict(
                type='Normal', std=0.01, override=dict(name='hidden')))
        self.hidden = nn.Linear(in_features, in_features)
        self.out = nn.Linear(in_features, out_features)

    def forward(self, x: Tensor) -> Tensor:
        """Region features (N, in_features) to box codes (N, out_features)."""
        return self.out(self.hidden(x).relu())
