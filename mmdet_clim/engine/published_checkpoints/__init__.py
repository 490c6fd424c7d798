# Licensed under the Apache License, Version 2.0.
"""Published weights, as those of this package's detectors."""
from .building import ObjectivePart, build_without_clip, objective_parts
from .class_vectors import (
    ClassVectors,
    class_agreement,
    find_class_vectors,
    names_of_rows,
    write_class_vectors,
)
from .clips import clip_of_config, convert_clip
from .conversion import Conversion, convert_state_dict
from .families import Family, recognise
from .reading import read_weights

__all__ = [
    'ClassVectors', 'Conversion', 'Family', 'ObjectivePart',
    'build_without_clip', 'class_agreement', 'clip_of_config', 'convert_clip',
    'convert_state_dict', 'find_class_vectors', 'names_of_rows',
    'objective_parts', 'read_weights', 'recognise', 'write_class_vectors'
]
