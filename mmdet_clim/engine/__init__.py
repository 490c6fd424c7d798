# Licensed under the Apache License, Version 2.0.
"""Parts of the training engine."""
from .clim_config import add_clim, read_fragment
from .cpu_processes import prepare_cpu_processes
from .hooks import (
    AtomicCheckpointHook,
    GridScheduleHook,
    IterationSeedHook,
    MosaicVisualizationHook,
    ResponseMapHook,
    WeightAveragingHook,
)
from .resumable_train_loop import ResumableTrainLoop
from .training_runs import finish_training

__all__ = [
    'AtomicCheckpointHook', 'GridScheduleHook', 'IterationSeedHook',
    'MosaicVisualizationHook', 'ResponseMapHook', 'ResumableTrainLoop',
    'WeightAveragingHook', 'add_clim', 'finish_training',
    'prepare_cpu_processes', 'read_fragment'
]
