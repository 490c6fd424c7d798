# Licensed under the Apache License, Version 2.0.
from .base import BaseTextEncoder
from .open_clip_encoder import OpenCLIPTextEncoder
from .precomputed import PrecomputedTextEncoder, load_vectors
from .prompts import (
    DEFAULT_TEMPLATES,
    check_distinct,
    encode_classes,
    imagenet_templates,
)
from .sentence_encoder import SentenceTextEncoder

__all__ = [
    'DEFAULT_TEMPLATES', 'BaseTextEncoder', 'OpenCLIPTextEncoder',
    'PrecomputedTextEncoder', 'SentenceTextEncoder', 'check_distinct',
    'encode_classes', 'imagenet_templates', 'load_vectors'
]
