# Licensed under the Apache License, Version 2.0.
"""One text encoder per process, and embeddings of classes kept on the disk."""
import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Iterator, Mapping, Sequence
from weakref import WeakValueDictionary

import torch
from mmengine.logging import print_log
from torch import Tensor

from mmdet_clim.files import atomic_path
from mmdet_clim.registry import MODELS

from .base import BaseTextEncoder

# Where embeddings of vocabularies are kept.
CACHE_VARIABLE = 'MMDET_CLIM_CACHE'
CACHE_FOLDER = '~/.cache/mmdet_clim'
# Texts that are encoded in a moment need no file.
MIN_TEXTS = 256

_in_use: 'WeakValueDictionary[str, BaseTextEncoder]' = WeakValueDictionary()
# A model is built part by part: what one part needed the next may need too.
_latest: list[BaseTextEncoder] = []


def build_text_encoder(cfg: Mapping) -> BaseTextEncoder:
    """Build a text encoder, or give that of the same config.

    All heads, objectives and stages of a process share one encoder, and with
    it what it has encoded.

    Args:
        cfg (Mapping): Config of the encoder.
    """
    key = encoder_key(cfg)
    encoder = _in_use.get(key)
    if encoder is None:
        encoder = _in_use[key] = MODELS.build(cfg)
    _latest[:] = [encoder]
    return encoder


def encoder_key(cfg: Mapping) -> str:
    """A text that two configs share if they make the same encoder.

    Files that the config names count with their size and time.
    """
    files = [(text, os.stat(text).st_size, os.stat(text).st_mtime_ns)
             for text in _texts(cfg) if os.path.isfile(text)]
    return json.dumps([cfg, files], sort_keys=True, default=str)


def _texts(node) -> Iterator[str]:
    """Every text in a config."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, Mapping):
        for value in node.values():
            yield from _texts(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from _texts(value)


def load_embeddings(encoder: BaseTextEncoder, names: Sequence[str],
                    templates: Sequence[str]) -> Tensor | None:
    """Embeddings of classes that an earlier process kept.

    Args:
        encoder (BaseTextEncoder): The very weights count, not their name.
        names (Sequence[str]): C class names.
        templates (Sequence[str]): Prompts.

    Returns:
        Tensor: (C, D) on the CPU, or None if there are none.
    """
    file = _file(encoder, names, templates)
    if file is None or not file.is_file():
        return None
    try:
        kept = torch.load(file, map_location='cpu', weights_only=True)
        embeddings = kept['embeddings']
        fits = (
            kept['names'] == list(names)
            and kept['templates'] == list(templates)
            and embeddings.shape == (len(names), encoder.dim))
    except Exception as error:  # torch.load raises whatever pickle does
        print_log(
            f'{file}: expected embeddings of classes, got {error}; they are '
            'computed again', 'current', logging.WARNING)
        return None
    return embeddings if fits else None


def keep_embeddings(encoder: BaseTextEncoder, names: Sequence[str],
                    templates: Sequence[str], embeddings: Tensor) -> None:
    """Keep embeddings of classes for later processes.

    Where the folder can not be written to, nothing is kept.

    Args:
        encoder, names, templates: As of :func:`load_embeddings`.
        embeddings (Tensor): Shape (C, D).
    """
    file = _file(encoder, names, templates)
    if file is None:
        return
    try:
        with atomic_path(file) as beside:
            torch.save(
                dict(
                    names=list(names),
                    templates=list(templates),
                    embeddings=embeddings.cpu()), beside)
    except OSError as error:
        print_log(
            f'{file}: embeddings of classes cannot be cached ({error}); '
            f'{CACHE_VARIABLE} sets another folder', 'current',
            logging.WARNING)


def _file(encoder: BaseTextEncoder, names: Sequence[str],
          templates: Sequence[str]) -> Path | None:
    """Where the embeddings are kept, None if they are not."""
    if len(names) * len(templates) < MIN_TEXTS or not encoder.is_slow:
        return None
    parts = json.dumps([encoder.fingerprint, list(names), list(templates)])
    digest = hashlib.sha256(parts.encode()).hexdigest()
    folder = Path(os.environ.get(CACHE_VARIABLE) or CACHE_FOLDER)
    return folder.expanduser() / 'class_embeddings' / f'{digest}.pth'
