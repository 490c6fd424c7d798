# Licensed under the Apache License, Version 2.0.
from .base import BaseTextEncoder
from .example_encoder import ExampleTextEncoder
from .open_clip_encoder import OpenCLIPTextEncoder
from .precomputed import PrecomputedTextEncoder, load_vectors
from .prompts import check_distinct, encode_classes, encode_phrases
from .sentence_encoder import SentenceTextEncoder
from .shared import build_text_encoder, encoder_key
from .templates import DEFAULT_TEMPLATES, Templates, resolve_templates

__all__ = [
    'DEFAULT_TEMPLATES', 'BaseTextEncoder', 'ExampleTextEncoder',
    'OpenCLIPTextEncoder', 'PrecomputedTextEncoder', 'SentenceTextEncoder',
    'Templates', 'build_text_encoder', 'check_distinct', 'encode_classes',
    'encode_phrases', 'encoder_key', 'load_vectors', 'resolve_templates'
]
