# Licensed under the Apache License, Version 2.0.
"""What a family of detectors has of its own: a file and a line each."""
from .base import FAMILIES, DetectorFamily, TakesVocabulary, family_of

__all__ = ['DetectorFamily', 'FAMILIES', 'TakesVocabulary', 'family_of']
