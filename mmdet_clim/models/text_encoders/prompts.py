# Licensed under the Apache License, Version 2.0.
"""Class names in prompt templates."""
from contextlib import contextmanager
from typing import List, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import BaseTextEncoder, check_texts
from .shared import keep_embeddings, load_embeddings

DEFAULT_TEMPLATES = ('a photo of a {}.', )
# An encoder remembers the embeddings of so many.
MAX_VOCABULARIES = 8


def check_templates(templates: Sequence[str]) -> None:
    """Refuse templates that have no place for a class name.

    Args:
        templates (Sequence[str]): Each with ``{}`` once.

    Raises:
        TypeError: If ``templates`` is one string.
        ValueError: If there is none, or one holds ``{}`` not exactly once.
    """
    if isinstance(templates, str):
        raise TypeError('templates must be a sequence of strings, got the '
                        f'string {templates!r}')
    if not templates:
        raise ValueError('templates must hold at least one template')
    for template in templates:
        if template.count('{}') != 1:
            raise ValueError('a template must hold {} exactly once, got '
                             f'{template!r}')


def imagenet_templates() -> List[str]:
    """The 80 ImageNet templates of CLIP, from open_clip."""
    import open_clip
    return [fill('{}') for fill in open_clip.OPENAI_IMAGENET_TEMPLATES]


def encode_classes(text_encoder: BaseTextEncoder,
                   names: Sequence[str],
                   templates: Sequence[str] = DEFAULT_TEMPLATES) -> Tensor:
    """Embed class names: the mean over templates, normalised again.

    A frozen encoder embeds a vocabulary once: it remembers it, and a large
    one is kept on the disk for the next process.

    Args:
        text_encoder (BaseTextEncoder): Encoder of the filled templates.
        names (Sequence[str]): C class names.
        templates (Sequence[str]): Each with ``{}`` where the name goes.

    Returns:
        Tensor: (C, D) float32 unit vectors.

    Raises:
        TypeError: If ``names`` or ``templates`` is one string.
        ValueError: If a name is empty, or a template holds ``{}`` not
            exactly once.
    """
    check_texts(names)
    check_templates(templates)
    if not isinstance(text_encoder, BaseTextEncoder):
        return _encode(text_encoder, names, templates)  # it is being trained
    key = (tuple(names), tuple(templates))
    known = text_encoder.vocabularies
    if key not in known:
        embeddings = load_embeddings(text_encoder, names, templates)
        if embeddings is None:
            with _on_the_gpu(text_encoder):
                embeddings = _encode(text_encoder, names, templates)
            keep_embeddings(text_encoder, names, templates, embeddings)
        while len(known) >= MAX_VOCABULARIES:
            del known[next(iter(known))]
        known[key] = embeddings.to(text_encoder.device)
    return known[key].clone()


def _encode(text_encoder: nn.Module, names: Sequence[str],
            templates: Sequence[str]) -> Tensor:
    texts = [t.replace('{}', name) for name in names for t in templates]
    embeddings = text_encoder(texts)
    embeddings = embeddings.view(
        len(names), len(templates), embeddings.shape[1])
    return F.normalize(embeddings.mean(1), dim=-1)


@contextmanager
def _on_the_gpu(text_encoder: BaseTextEncoder):
    """Where there is one, for as long as a vocabulary is encoded."""
    device = text_encoder.device
    if device.type != 'cpu' or not torch.cuda.is_available():
        yield
        return
    text_encoder.cuda()
    try:
        yield
    finally:
        text_encoder.to(device)
