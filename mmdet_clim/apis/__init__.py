# Licensed under the Apache License, Version 2.0.
"""Inference with a vocabulary given at run time."""
from .inferencer import CLIMInferencer
from .onnx_detector import Canvas, OnnxDetector, canvas_of, export_onnx
from .vocabulary import TakesVocabulary, parse_names, set_vocabulary
from .word_finder import Found, WordFinder

__all__ = [
    'CLIMInferencer', 'Canvas', 'Found', 'OnnxDetector', 'TakesVocabulary',
    'WordFinder', 'canvas_of', 'export_onnx', 'parse_names', 'set_vocabulary'
]
