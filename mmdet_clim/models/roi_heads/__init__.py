# Licensed under the Apache License, Version 2.0.
from .mlp_regressor import MLPRegressor
from .zero_shot_bbox_head import (
    ZeroShotBBoxHead,
    ZeroShotConvFCBBoxHead,
    ZeroShotMixin,
)
from .zero_shot_classifier import ZeroShotClassifier

__all__ = [
    'MLPRegressor', 'ZeroShotBBoxHead', 'ZeroShotClassifier',
    'ZeroShotConvFCBBoxHead', 'ZeroShotMixin'
]
