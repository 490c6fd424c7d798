# Licensed under the Apache License, Version 2.0.
"""OpenMoji-COCO: scenes of OpenMoji glyphs in COCO's and LVIS's layouts."""
from .build import build_dataset, is_finished
from .classes import Glyph, SceneClass, coco_classes, frequencies, lvis_classes
from .noise import CaptionNoise
from .splits import CHUNK, DatasetParameters

__all__ = [
    'CHUNK', 'CaptionNoise', 'DatasetParameters', 'Glyph', 'SceneClass',
    'build_dataset', 'coco_classes', 'frequencies', 'is_finished',
    'lvis_classes'
]
