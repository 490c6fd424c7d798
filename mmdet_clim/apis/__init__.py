# Licensed under the Apache License, Version 2.0.
"""Inference with a vocabulary given at run time."""
from .inferencer import CLIMInferencer
from .onnx_detector import Canvas, OnnxDetector, canvas_of, export_onnx
from .sharing import from_pretrained, push_to_hub, save_pretrained
from .vocabulary import TakesVocabulary, parse_names, set_vocabulary
from .word_finder import Found, WordFinder

__all__ = [
    'CLIMInferencer', 'Canvas', 'Found', 'OnnxDetector', 'TakesVocabulary',
    'WordFinder', 'canvas_of', 'export_onnx', 'from_pretrained',
    'parse_names', 'push_to_hub', 'save_pretrained', 'set_vocabulary'
]
