# Licensed under the Apache License, Version 2.0.
from .base_class_loss import BaseClassLoss
from .base_class_softmax_loss import BaseClassSoftmaxLoss
from .clim_region_loss import CLIMRegionLoss
from .federated_class_loss import FederatedClassLoss
from .text_queue import TextQueue

__all__ = [
    'BaseClassLoss', 'BaseClassSoftmaxLoss', 'CLIMRegionLoss',
    'FederatedClassLoss', 'TextQueue'
]
