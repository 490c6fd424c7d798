# Licensed under the Apache License, Version 2.0.
"""Parts of the training engine."""
from .captioned_views import captioned_views
from .clim_config import add_clim, read_fragment
from .cpu_processes import prepare_cpu_processes
from .detection_sets_loop import DetectionSetsLoop
from .fingerprint import (
    check_run,
    open_run,
    read_fingerprint,
    run_fingerprint,
)
from .hooks import (
    AtomicCheckpointHook,
    DetectionsHook,
    GridScheduleHook,
    IterationSeedHook,
    MosaicVisualizationHook,
    ResponseMapHook,
    UnreachedWeightsHook,
    UnreadableImagesHook,
    WeightAveragingHook,
)
from .pretrained_init import FittingPretrainedInit
from .resumable_train_loop import ResumableTrainLoop
from .step_time import time_training
from .steps import StepError, Steps
from .training_runs import finish_training, resolve_run

__all__ = [
    'AtomicCheckpointHook', 'DetectionSetsLoop', 'DetectionsHook',
    'FittingPretrainedInit', 'GridScheduleHook', 'IterationSeedHook',
    'MosaicVisualizationHook', 'ResponseMapHook', 'ResumableTrainLoop',
    'StepError', 'Steps', 'UnreachedWeightsHook', 'UnreadableImagesHook',
    'WeightAveragingHook', 'add_clim', 'captioned_views', 'check_run',
    'finish_training', 'open_run', 'prepare_cpu_processes', 'read_fingerprint',
    'read_fragment', 'resolve_run', 'run_fingerprint', 'time_training'
]
