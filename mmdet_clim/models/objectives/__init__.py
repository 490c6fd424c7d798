# Licensed under the Apache License, Version 2.0.
from .bag_of_regions import BagOfRegionsObjective
from .bag_of_regions_distillation import BagDistillationObjective
from .bag_of_regions_proposals import LikelyObjects
from .bag_of_regions_reading import BagReader, SampledBags
from .base import BaseRegionObjective, SampledRegions, recall_at_1
from .class_texts import ClassTexts
from .composition import compose_tiles, union_boxes
from .crop_encoder import CropEncoder
from .grounding import GroundingObjective
from .region_caption import RegionCaptionObjective
from .region_pseudo_label import RegionPseudoLabelObjective
from .region_tag import RegionTagObjective
from .tile_proposals import assign_to_tiles, largest_in_tiles

__all__ = [
    'BagDistillationObjective', 'BagOfRegionsObjective', 'BagReader',
    'BaseRegionObjective', 'ClassTexts', 'CropEncoder', 'GroundingObjective',
    'LikelyObjects', 'RegionCaptionObjective', 'RegionPseudoLabelObjective',
    'RegionTagObjective', 'SampledBags', 'SampledRegions', 'assign_to_tiles',
    'compose_tiles', 'largest_in_tiles', 'recall_at_1', 'union_boxes'
]
