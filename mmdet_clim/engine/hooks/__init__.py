# Licensed under the Apache License, Version 2.0.
"""Training hooks."""
from .atomic_checkpoint_hook import AtomicCheckpointHook
from .grid_schedule_hook import GridScheduleHook
from .iteration_seed_hook import IterationSeedHook
from .mosaic_visualization_hook import MosaicVisualizationHook
from .response_map_hook import ResponseMapHook
from .weight_averaging_hook import WeightAveragingHook

__all__ = [
    'AtomicCheckpointHook', 'GridScheduleHook', 'IterationSeedHook',
    'MosaicVisualizationHook', 'ResponseMapHook', 'WeightAveragingHook'
]
