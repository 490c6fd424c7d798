# Licensed under the Apache License, Version 2.0.
from .base import BaseRegionReader
from .build import build_region_reader
from .two_stage_reader import TwoStageReader

__all__ = ['BaseRegionReader', 'TwoStageReader', 'build_region_reader']
