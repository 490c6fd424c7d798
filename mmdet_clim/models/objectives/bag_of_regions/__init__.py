# Licensed under the Apache License, Version 2.0.
"""Bags of regions, as BARON has them (REFERENCE.md, section 3)."""
from .caption_objective import BagOfRegionsObjective
from .distillation_objective import BagDistillationObjective
from .likely_objects import LikelyObjects
from .reading import BagReader, SampledBags

__all__ = [
    'BagDistillationObjective', 'BagOfRegionsObjective', 'BagReader',
    'LikelyObjects', 'SampledBags'
]
