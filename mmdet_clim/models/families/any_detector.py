# Licensed under the Apache License, Version 2.0.
from mmdet_clim.models.region_readers import DenseFeatureReader

from .base import DetectorFamily


class AnyDetector(DetectorFamily):
    """Whatever has feature maps."""

    readers = (DenseFeatureReader, )
