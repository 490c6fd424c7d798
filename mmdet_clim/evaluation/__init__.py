# Licensed under the Apache License, Version 2.0.
"""Metrics of open-vocabulary detection, and the tables made from runs."""
from .checked_coco_metric import CheckedCocoMetric
from .class_ap import CLASS_AP, compare_class_ap, read_class_ap
from .error_types import (
    ERROR_TYPES,
    ClassErrors,
    error_types,
    first_detections,
)
from .image_text_retrieval_metric import ImageTextRetrievalMetric
from .ov_coco_metric import OVCocoMetric
from .ov_lvis_metric import OVLVISMetric
from .region_classification_metric import RegionClassificationMetric
from .resampled_ap import ResampledAP
from .run_log import last_metrics, read_scalars, seconds_per_iteration
from .tables import (
    COLUMNS,
    OV_COCO_COLUMNS,
    OV_LVIS_COLUMNS,
    REGION_COLUMNS,
    add_differences,
    differences_table,
    markdown_table,
    summarise_runs,
)

__all__ = [
    'CLASS_AP', 'COLUMNS', 'CheckedCocoMetric', 'ClassErrors', 'ERROR_TYPES',
    'ImageTextRetrievalMetric', 'OVCocoMetric', 'OVLVISMetric',
    'OV_COCO_COLUMNS', 'OV_LVIS_COLUMNS', 'REGION_COLUMNS',
    'RegionClassificationMetric', 'ResampledAP', 'add_differences',
    'compare_class_ap', 'differences_table', 'error_types', 'first_detections',
    'last_metrics', 'markdown_table', 'read_class_ap', 'read_scalars',
    'seconds_per_iteration', 'summarise_runs'
]
