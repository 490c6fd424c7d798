# Licensed under the Apache License, Version 2.0.
from ..class_texts import ClassTexts
from .bag_of_regions.caption_objective import BagOfRegionsObjective
from .bag_of_regions.distillation_objective import BagDistillationObjective
from .bag_of_regions.likely_objects import LikelyObjects
from .bag_of_regions.reading import BagReader, SampledBags
from .base import (
    AnnotatedContext,
    BaseObjective,
    BaseRegionObjective,
    BranchContext,
    BranchStage,
    TilesAlone,
)
from .grounding.objective import GroundingObjective
from .old_words.objective import OldWordsObjective
from .query_tag import QueryTagObjective
from .region_caption import RegionCaptionObjective
from .region_pseudo_label import RegionPseudoLabelObjective
from .region_tag import RegionTagObjective
from .tile_batch import (
    Proposals,
    Regions,
    TileBatch,
    TileProposals,
    compose_tiles,
    union_boxes,
)

__all__ = [
    'AnnotatedContext', 'BagDistillationObjective', 'BagOfRegionsObjective',
    'BagReader', 'BaseObjective', 'BaseRegionObjective', 'BranchContext',
    'BranchStage', 'ClassTexts', 'GroundingObjective', 'LikelyObjects',
    'OldWordsObjective', 'Proposals', 'QueryTagObjective',
    'RegionCaptionObjective', 'RegionPseudoLabelObjective',
    'RegionTagObjective', 'Regions', 'SampledBags', 'TileBatch',
    'TileProposals', 'TilesAlone', 'compose_tiles', 'union_boxes'
]
