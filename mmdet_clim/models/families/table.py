# Licensed under the Apache License, Version 2.0.
"""The families of detectors: a new one is a file and a line here."""
from .base import FAMILIES
from .dense_head import AnyDetector, DenseHeadFamily, DenseMaskFamily
from .glip import GLIPFamily
from .grounding_dino import GroundingDINOFamily
from .transformer import TransformerFamily
from .two_stage import TridentFamily, TwoStageFamily

# From the most special one: a detector is of the first that it fits.
FAMILIES += [
    GroundingDINOFamily(),
    GLIPFamily(),
    TridentFamily(),
    TwoStageFamily(),
    TransformerFamily(),
    DenseHeadFamily(),
    DenseMaskFamily(),
    AnyDetector(),
]
