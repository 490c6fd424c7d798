# Licensed under the Apache License, Version 2.0.
"""Inference with a vocabulary given at run time."""
from .inferencer import CLIMInferencer
from .vocabulary import TakesVocabulary, parse_names, set_vocabulary

__all__ = [
    'CLIMInferencer', 'TakesVocabulary', 'parse_names', 'set_vocabulary'
]
