# Licensed under the Apache License, Version 2.0.
"""Metrics of open-vocabulary detection, and the tables made from them."""
from .ov_coco_metric import OVCocoMetric

__all__ = ['OVCocoMetric']
