# Licensed under the Apache License, Version 2.0.
"""Transforms between an image-text source and a region-text sample."""
from .class_prompt import BaseClassPrompt
from .loading import LoadImageText
from .mosaic import MosaicCLIM
from .packing import PackRegionTextInputs
from .panoptic_regions import FilterRegionsByArea, LoadPanopticRegions
from .random_resized_crop import RandomResizedCrop
from .tokenize_prompts import TokenizePrompts

__all__ = [
    'BaseClassPrompt', 'FilterRegionsByArea', 'LoadImageText',
    'LoadPanopticRegions', 'MosaicCLIM', 'PackRegionTextInputs',
    'RandomResizedCrop', 'TokenizePrompts'
]
