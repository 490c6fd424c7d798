# Licensed under the Apache License, Version 2.0.
"""Metrics of open-vocabulary detection, and the tables made from runs."""
from .error_types import ERROR_TYPES, ClassErrors, error_types
from .ov_coco_metric import OVCocoMetric
from .ov_lvis_metric import OVLVISMetric
from .run_log import last_metrics, read_scalars, seconds_per_iteration
from .tables import OV_COCO_COLUMNS, markdown_table, summarise_runs

__all__ = [
    'ClassErrors', 'ERROR_TYPES', 'OVCocoMetric', 'OVLVISMetric',
    'OV_COCO_COLUMNS', 'error_types', 'last_metrics', 'markdown_table',
    'read_scalars', 'seconds_per_iteration', 'summarise_runs'
]
