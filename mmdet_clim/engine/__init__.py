# Licensed under the Apache License, Version 2.0.
"""Parts of the training engine."""
from .clim_config import add_clim, read_fragment
from .cpu_processes import prepare_cpu_processes
from .fingerprint import open_run, read_fingerprint, run_fingerprint
from .hooks import (
    GridScheduleHook,
    IterationSeedHook,
    MosaicVisualizationHook,
    ResponseMapHook,
    WeightAveragingHook,
)
from .pretrained_init import FittingPretrainedInit
from .training_runs import finish_training

__all__ = [
    'FittingPretrainedInit',
    'GridScheduleHook', 'IterationSeedHook', 'MosaicVisualizationHook',
    'ResponseMapHook', 'WeightAveragingHook', 'add_clim', 'finish_training',
    'open_run', 'prepare_cpu_processes', 'read_fingerprint', 'read_fragment',
    'run_fingerprint'
]
