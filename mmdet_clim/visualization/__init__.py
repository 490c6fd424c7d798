# Licensed under the Apache License, Version 2.0.
"""Pictures of mosaics with their texts, of detections, and of training."""
from .class_bars import plot_class_ap
from .curves import plot_curves
from .detections import draw_boxes, draw_detections
from .feature_maps import cluster_colours, pca_colours
from .grid import picture_grid
from .mlflow_backend import MLflowVisBackend
from .model_views import ModelView, SeenImage, own_reader, view_model
from .mosaic import composed_boxes, draw_mosaic
from .nearest import (
    ReadRegion,
    best_of_images,
    draw_nearest_regions,
    draw_nearest_texts,
)
from .response_maps import (
    detector_responses,
    draw_responses,
    response_rows,
    tower_responses,
)
from .rows import plot_rows

__all__ = [
    'MLflowVisBackend', 'ModelView', 'ReadRegion', 'SeenImage',
    'best_of_images', 'cluster_colours', 'composed_boxes',
    'detector_responses', 'draw_boxes', 'draw_detections', 'draw_mosaic',
    'draw_nearest_regions', 'draw_nearest_texts', 'draw_responses',
    'own_reader', 'pca_colours', 'picture_grid', 'plot_class_ap',
    'plot_curves', 'plot_rows', 'response_rows', 'tower_responses',
    'view_model'
]
