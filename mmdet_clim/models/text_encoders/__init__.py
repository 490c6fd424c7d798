# Licensed under the Apache License, Version 2.0.
from .base import BaseTextEncoder
from .open_clip_encoder import OpenCLIPTextEncoder
from .precomputed import (
    ExampleTextEncoder,
    PrecomputedTextEncoder,
    load_vectors,
)
from .prompts import (
    DEFAULT_TEMPLATES,
    Templates,
    build_text_encoder,
    check_distinct,
    encode_classes,
    encode_phrases,
    encoder_key,
    resolve_templates,
)
from .sentence_encoder import SentenceTextEncoder

__all__ = [
    'DEFAULT_TEMPLATES', 'BaseTextEncoder', 'ExampleTextEncoder',
    'OpenCLIPTextEncoder', 'PrecomputedTextEncoder', 'SentenceTextEncoder',
    'Templates', 'build_text_encoder', 'check_distinct', 'encode_classes',
    'encode_phrases', 'encoder_key', 'load_vectors', 'resolve_templates'
]
