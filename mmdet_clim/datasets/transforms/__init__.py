# Licensed under the Apache License, Version 2.0.
"""Transforms between an image-text source and a region-text sample."""
from .class_prompt import BaseClassPrompt
from .loading import LoadImageText
from .mosaic import MosaicCLIM
from .packing import PackRegionTextInputs
from .panoptic_regions import LoadPanopticRegions

__all__ = [
    'BaseClassPrompt', 'LoadImageText', 'LoadPanopticRegions', 'MosaicCLIM',
    'PackRegionTextInputs'
]
