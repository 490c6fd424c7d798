# Licensed under the Apache License, Version 2.0.
"""Training hooks."""
from .atomic_checkpoint_hook import AtomicCheckpointHook
from .detections_hook import DetectionsHook
from .grid_schedule_hook import GridScheduleHook
from .iteration_seed_hook import IterationSeedHook
from .mosaic_visualization_hook import MosaicVisualizationHook
from .response_map_hook import ResponseMapHook
from .unreached_weights_hook import UnreachedWeightsHook
from .unreadable_images_hook import UnreadableImagesHook
from .weight_averaging_hook import WeightAveragingHook

__all__ = [
    'AtomicCheckpointHook', 'DetectionsHook', 'GridScheduleHook',
    'IterationSeedHook', 'MosaicVisualizationHook', 'ResponseMapHook',
    'UnreachedWeightsHook', 'UnreadableImagesHook', 'WeightAveragingHook'
]
