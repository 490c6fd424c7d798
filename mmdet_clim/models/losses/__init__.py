# Licensed under the Apache License, Version 2.0.
from .base_class_sigmoid_loss import BaseClassSigmoidLoss
from .base_class_softmax_loss import BaseClassSoftmaxLoss
from .clim_region_loss import CLIMRegionLoss
from .feature_queue import FeatureQueue
from .federated_class_loss import FederatedClassLoss
from .heat_map_focal_loss import HeatMapFocalLoss

__all__ = [
    'BaseClassSigmoidLoss', 'BaseClassSoftmaxLoss', 'CLIMRegionLoss',
    'FederatedClassLoss', 'FeatureQueue', 'HeatMapFocalLoss'
]
