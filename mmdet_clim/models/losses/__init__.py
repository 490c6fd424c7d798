# Licensed under the Apache License, Version 2.0.
from .base_class_losses import (
    BaseClassSigmoidLoss,
    BaseClassSoftmaxLoss,
    FederatedClassLoss,
)
from .clim_region_loss import CLIMRegionLoss
from .feature_queue import FeatureQueue
from .heat_map_focal_loss import HeatMapFocalLoss

__all__ = [
    'BaseClassSigmoidLoss', 'BaseClassSoftmaxLoss', 'CLIMRegionLoss',
    'FederatedClassLoss', 'FeatureQueue', 'HeatMapFocalLoss'
]
