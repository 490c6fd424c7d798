# Licensed under the Apache License, Version 2.0.
from .base import BaseRegionObjective, SampledRegions, recall_at_1
from .composition import compose_tiles, union_boxes
from .region_caption import RegionCaptionObjective
from .region_tag import RegionTagObjective

__all__ = [
    'BaseRegionObjective', 'RegionCaptionObjective', 'RegionTagObjective',
    'SampledRegions', 'compose_tiles', 'recall_at_1', 'union_boxes'
]
