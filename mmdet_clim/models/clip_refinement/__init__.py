# Licensed under the Apache License, Version 2.0.
"""CLIM on CLIP itself: refining the dense features of an image tower."""
from .batch_mosaic import BatchMosaic, MosaicBatch
from .box_sources import BoxSource, FileBoxes, GridBoxes, RandomBoxes
from .clim_on_clip import CLIMOnCLIP
from .objectives import (
    BaseCLIPObjective,
    MosaicTextObjective,
    RegionLabelObjective,
    SelfDistillationObjective,
    Towers,
)
from .towers import OpenCLIPTextTower, tower_blocks, unlock_blocks

__all__ = [
    'BaseCLIPObjective', 'BatchMosaic', 'BoxSource', 'CLIMOnCLIP', 'FileBoxes',
    'GridBoxes', 'MosaicBatch', 'MosaicTextObjective', 'OpenCLIPTextTower',
    'RandomBoxes', 'RegionLabelObjective', 'SelfDistillationObjective',
    'Towers', 'tower_blocks', 'unlock_blocks'
]
