# Licensed under the Apache License, Version 2.0.
"""Detectors that look at an image for the sake of a text."""
from typing import Optional

from torch import nn

from .base import GroundingDetector, TextAdapter
from .glip import GLIPAdapter
from .grounding_dino import GroundingDINOAdapter
from .prompts import SEPARATOR, GroundingPrompt, clean_phrase, pack_phrases

# The families: a new one is a file with its adapter and a line here.
ADAPTERS = (GroundingDINOAdapter(), GLIPAdapter())


def text_adapter(detector: nn.Module) -> Optional[TextAdapter]:
    """The adapter of a detector's family, None if it reads no texts.

    Args:
        detector (nn.Module): Any detector.
    """
    return next((a for a in ADAPTERS if isinstance(detector, a.detector_type)),
                None)


__all__ = [
    'ADAPTERS', 'SEPARATOR', 'GroundingDetector', 'GroundingPrompt',
    'TextAdapter', 'clean_phrase', 'pack_phrases', 'text_adapter'
]
