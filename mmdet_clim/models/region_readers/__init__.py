# Licensed under the Apache License, Version 2.0.
from .base import (
    BaseRegionReader,
    ExtractedImages,
    ReadingStage,
    aligned_levels,
    build_region_reader,
    features_once,
)
from .dense_feature_reader import DenseFeatureReader, GroundingReader
from .two_stage_reader import CascadeReader, TwoStageReader

__all__ = [
    'BaseRegionReader', 'CascadeReader', 'DenseFeatureReader',
    'ExtractedImages', 'GroundingReader', 'ReadingStage', 'TwoStageReader',
    'aligned_levels', 'build_region_reader', 'features_once'
]
