# Licensed under the Apache License, Version 2.0.
"""OpenMoji-COCO: scenes of OpenMoji glyphs in COCO's and LVIS's layouts."""
from .build import DatasetParameters, build_dataset
from .classes import Glyph, SceneClass, coco_classes

__all__ = [
    'DatasetParameters', 'Glyph', 'SceneClass', 'build_dataset',
    'coco_classes'
]
