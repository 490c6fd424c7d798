# Licensed under the Apache License, Version 2.0.
"""Inference with a vocabulary given at run time."""
from .inferencer import CLIMInferencer
from .onnx_dense import OnnxDenseDetector
from .onnx_detector import OnnxDetector
from .onnx_export import export_onnx, write_onnx
from .sharing import from_pretrained, push_to_hub, save_pretrained
from .vocabulary import TakesVocabulary, parse_names, set_vocabulary
from .word_finder import Found, WordFinder

__all__ = [
    'CLIMInferencer', 'Found', 'OnnxDenseDetector', 'OnnxDetector',
    'TakesVocabulary', 'WordFinder', 'export_onnx', 'from_pretrained',
    'parse_names', 'push_to_hub', 'save_pretrained', 'set_vocabulary',
    'write_onnx'
]
