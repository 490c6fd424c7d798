# Licensed under the Apache License, Version 2.0.
from .base import BaseTextEncoder
from .example_encoder import ExampleTextEncoder
from .open_clip_encoder import OpenCLIPTextEncoder
from .precomputed import PrecomputedTextEncoder, load_vectors
from .prompts import (
    DEFAULT_TEMPLATES,
    check_distinct,
    encode_classes,
    imagenet_templates,
)
from .sentence_encoder import SentenceTextEncoder
from .shared import build_text_encoder, encoder_key

__all__ = [
    'DEFAULT_TEMPLATES', 'BaseTextEncoder', 'ExampleTextEncoder',
    'OpenCLIPTextEncoder', 'PrecomputedTextEncoder', 'SentenceTextEncoder',
    'build_text_encoder', 'check_distinct', 'encode_classes', 'encoder_key',
    'imagenet_templates', 'load_vectors'
]
