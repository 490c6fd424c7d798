# Licensed under the Apache License, Version 2.0.
from mmdet_clim.models.class_texts import ClassTexts

from .bag_of_regions import (
    BagDistillationObjective,
    BagOfRegionsObjective,
    BagReader,
    LikelyObjects,
    SampledBags,
)
from .base import (
    AnnotatedContext,
    BaseObjective,
    BaseRegionObjective,
    BranchContext,
    BranchStage,
    TilesAlone,
)
from .grounding import GroundingObjective
from .old_words import OldWordsObjective
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
    'OldWordsObjective', 'Proposals', 'RegionCaptionObjective',
    'RegionPseudoLabelObjective', 'RegionTagObjective', 'Regions',
    'SampledBags', 'TileBatch', 'TileProposals', 'TilesAlone', 'compose_tiles',
    'union_boxes'
]
