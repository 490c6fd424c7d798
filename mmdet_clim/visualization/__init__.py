# Licensed under the Apache License, Version 2.0.
"""Pictures of mosaics with their texts, of detections, and of training."""
from .curves import plot_curves
from .detections import draw_boxes, draw_detections
from .mosaic import draw_mosaic
from .rows import plot_rows

__all__ = [
    'draw_boxes', 'draw_detections', 'draw_mosaic', 'plot_curves', 'plot_rows'
]
