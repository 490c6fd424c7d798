# Licensed under the Apache License, Version 2.0.
"""CLIM on CLIP itself: refining the dense features of an image tower."""
from .batch_mosaic import BatchMosaic, MosaicBatch
from .box_sources import BoxSource, FileBoxes, GridBoxes, RandomBoxes
from .clim_on_clip import CLIMOnCLIP
from .crop_objectives import RegionLabelObjective, SelfDistillationObjective
from .mosaic_text_objective import MosaicTextObjective
from .objective_base import BaseCLIPObjective, Towers
from .text_tower import OpenCLIPTextTower
from .unlocking import tower_blocks, unlock_blocks

__all__ = [
    'BaseCLIPObjective', 'BatchMosaic', 'BoxSource', 'CLIMOnCLIP', 'FileBoxes',
    'GridBoxes', 'MosaicBatch', 'MosaicTextObjective', 'OpenCLIPTextTower',
    'RandomBoxes', 'RegionLabelObjective', 'SelfDistillationObjective',
    'Towers', 'tower_blocks', 'unlock_blocks'
]
