# Licensed under the Apache License, Version 2.0.
"""What detectors that read texts are told, and learn of it."""
from .prompts import SEPARATOR, GroundingPrompt, clean_phrase, pack_phrases

__all__ = ['SEPARATOR', 'GroundingPrompt', 'clean_phrase', 'pack_phrases']
