# Licensed under the Apache License, Version 2.0.
from .base import BaseRegionReader, ReadingStage
from .build import build_region_reader
from .cascade_reader import CascadeReader
from .dense_feature_reader import DenseFeatureReader
from .features import ExtractedImages, aligned_levels, features_once
from .grounding_reader import GroundingReader
from .two_stage_reader import TwoStageReader

__all__ = [
    'BaseRegionReader', 'CascadeReader', 'DenseFeatureReader',
    'ExtractedImages', 'GroundingReader', 'ReadingStage', 'TwoStageReader',
    'aligned_levels', 'build_region_reader', 'features_once'
]
