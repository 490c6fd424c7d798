# Licensed under the Apache License, Version 2.0.
"""Detic's published weights, of Detectron2 and of MMDetection."""
from .conversion import Conversion, convert_state_dict, guess_source
from .reading import read_weights

__all__ = ['Conversion', 'convert_state_dict', 'guess_source', 'read_weights']
