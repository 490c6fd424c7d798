# Licensed under the Apache License, Version 2.0.
"""Class names in prompt templates, encoded once and kept."""
import hashlib
import json
import logging
import os
import re
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Iterator, Mapping, Sequence
from weakref import WeakValueDictionary

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor, nn

from mmdet_clim.datasets.vocabulary import Vocabulary
from mmdet_clim.files import atomic_path
from mmdet_clim.registry import MODELS

from .base import BaseTextEncoder, check_texts
from .vild_templates import VILD_TEMPLATES

#: Templates, or the name of a set of them.
Templates = str | Sequence[str]

DEFAULT_TEMPLATES = ('a photo of a {}.', )
#: Where the name goes, or the name as the data set's file has it; and where
#: "a" or "an" for it.
NAME = '{}'
RAW_NAME = '{raw}'
ARTICLE = '{article}'


def imagenet_templates() -> list[str]:
    """The 80 ImageNet templates of CLIP, from open_clip."""
    import open_clip
    return [fill(NAME) for fill in open_clip.OPENAI_IMAGENET_TEMPLATES]


def vild_templates() -> list[str]:
    """The 63 templates of ViLD; "This is " comes before "a" and "the"."""
    return [
        f'This is {text}' if text.startswith(('a', 'the')) else text
        for text in VILD_TEMPLATES
    ]


#: Sets of templates by name.
NAMED_TEMPLATES: dict[str, Callable[[], list[str]]] = dict(
    imagenet=imagenet_templates, vild=vild_templates)


def resolve_templates(templates: Templates) -> tuple[str, ...]:
    """Templates of a set, or those that are given.

    Args:
        templates (str or Sequence[str]): ``'vild'``, ``'imagenet'``, or
            templates, each with ``{}`` once where the name goes, or all with
            ``{raw}`` for the vocabulary's raw name. In each, ``{article}``
            becomes "an" for a name that begins with a vowel and "a" for any
            other.

    Returns:
        tuple[str]: At least one template.

    Raises:
        TypeError: If ``templates`` is neither; a single template is not.
        ValueError: If there is no set of that name, there is no template,
            one holds the name not exactly once or another field, or some are
            of names and some of raw ones.
    """
    expected = (f'templates: expected one of the names '
                f'{sorted(NAMED_TEMPLATES)} or a sequence of templates, got ')
    if isinstance(templates, str):
        if templates in NAMED_TEMPLATES:
            return tuple(NAMED_TEMPLATES[templates]())
        wrong = TypeError if NAME in templates else ValueError
        raise wrong(f'{expected}the string {templates!r}')
    if not isinstance(templates, Sequence):
        raise TypeError(f'{expected}{templates!r}')
    if not templates:
        raise ValueError('templates: expected at least one, got none')
    for template in templates:
        _check(template)
    if len({RAW_NAME in template for template in templates}) > 1:
        raise ValueError(f'templates: expected {NAME} in all or {RAW_NAME} in '
                         f'all, got {list(templates)}')
    return tuple(templates)


def _check(template: str) -> None:
    if not isinstance(template, str):
        raise TypeError(f'templates: expected strings, got {template!r}')
    if template.count(NAME) + template.count(RAW_NAME) != 1:
        raise ValueError('templates: expected {} exactly once in each, got '
                         f'{template!r}')
    other = sorted(set(re.findall(r'\{\w+\}', template)) - {ARTICLE, RAW_NAME})
    if other:
        raise ValueError(
            f'templates: expected only the fields {NAME} or {RAW_NAME}, and '
            f'{ARTICLE}, got {other[0]} in {template!r}')


def fill_template(template: str, name: str) -> str:
    """The text of a class.

    Args:
        template (str): As :func:`resolve_templates` gives it.
        name (str): Of the class, not empty; the one that it asks for.

    Example:
        >>> fill_template('a photo of {article} {}.', 'orange')
        'a photo of an orange.'
    """
    article = 'an' if name.strip()[:1].lower() in tuple('aeiou') else 'a'
    template = template.replace(ARTICLE, article).replace(RAW_NAME, NAME)
    return template.replace(NAME, name)


# An encoder remembers the embeddings of so many.
MAX_VOCABULARIES = 8
#: Two classes of a larger cosine are one for a detector.
SAME_COSINE = 1 - 1e-6
# Classes that are compared with all others at a time.
ROWS = 2048


def encode_classes(text_encoder: BaseTextEncoder,
                   classes: Vocabulary | Sequence[str],
                   templates: Templates = DEFAULT_TEMPLATES) -> Tensor:
    """Embed class names: the mean over templates, normalised again.

    A frozen encoder embeds a vocabulary once: it remembers it, and a large
    one is kept on the disk for the next process.

    Args:
        text_encoder (BaseTextEncoder): Encoder of the filled templates.
        classes (Vocabulary or Sequence[str]): C classes, or their names.
        templates (str or Sequence[str]): See :func:`resolve_templates`.

    Returns:
        Tensor: (C, D) float32 unit vectors.

    Raises:
        TypeError: If ``classes`` is one string.
        ValueError: If a name is empty, the templates are wrong, or two names
            have one embedding.
    """
    templates = resolve_templates(templates)
    if isinstance(classes, Vocabulary):
        asks_raw = RAW_NAME in templates[0]
        classes = asks_raw and classes.raw_names or classes.names
    names: Sequence[str] = classes
    check_texts(names)
    if not isinstance(text_encoder, BaseTextEncoder):
        return _encode(text_encoder, names, templates)  # it is being trained
    key = (tuple(names), templates)
    known = text_encoder.vocabularies
    if key not in known:
        embeddings = load_embeddings(text_encoder, names, templates)
        if embeddings is None:
            with _for_good(text_encoder):
                embeddings = _encode(text_encoder, names, templates)
            keep_embeddings(text_encoder, names, templates, embeddings)
        while len(known) >= MAX_VOCABULARIES:
            del known[next(iter(known))]
        known[key] = embeddings.to(text_encoder.device)
    return known[key].clone()


def encode_phrases(text_encoder: BaseTextEncoder,
                   vocabulary: Vocabulary,
                   templates: Templates = DEFAULT_TEMPLATES) -> Tensor:
    """Embed all phrases of classes, which mostly have one, their name.

    Args:
        text_encoder (BaseTextEncoder): Encoder of the filled templates.
        vocabulary (Vocabulary): Classes with P phrases.
        templates (str or Sequence[str]): See :func:`resolve_templates`.

    Returns:
        Tensor: (P, D) float32 unit vectors.

    Raises:
        ValueError: As :func:`encode_classes`.
    """
    several = vocabulary.phrases is not None
    classes = vocabulary.texts if several else vocabulary
    return encode_classes(text_encoder, classes, templates)


def _encode(text_encoder: nn.Module, names: Sequence[str],
            templates: Sequence[str]) -> Tensor:
    texts = [fill_template(t, name) for name in names for t in templates]
    embeddings = text_encoder(texts)
    embeddings = embeddings.view(
        len(names), len(templates), embeddings.shape[1])
    embeddings = F.normalize(embeddings.mean(1), dim=-1)
    check_distinct(names, embeddings)
    return embeddings


def check_distinct(names: Sequence[str], embeddings: Tensor) -> None:
    """See that no two classes have one embedding.

    An encoder that has no tokens for a script reads all its words as one, and
    boxes of such classes would get both names or either.

    Args:
        names (Sequence[str]): C class names.
        embeddings (Tensor): Shape (C, D), of any norm.

    Raises:
        ValueError: If the cosine of two is more than ``SAME_COSINE``; the
            message names them.
    """
    with torch.no_grad(), torch.autocast(
            embeddings.device.type, enabled=False):
        vectors = F.normalize(embeddings.detach().float(), dim=-1)
        pairs = []
        for start in range(0, len(vectors), ROWS):
            cosines = vectors[start:start + ROWS] @ vectors.t()
            # Of rough products, those that may be; then exactly.
            near = (cosines > 1 - 1e-3).nonzero()
            near = near[near[:, 0] + start < near[:, 1]]
            one, other = near[:, 0] + start, near[:, 1]
            exact = F.cosine_similarity(vectors[one].double(),
                                        vectors[other].double())
            same = exact > SAME_COSINE
            pairs += torch.stack([one[same], other[same]], 1).tolist()
    if pairs:
        shown = '; '.join(f'{names[i]!r} and {names[j]!r}'
                          for i, j in pairs[:5])
        more = f' and {len(pairs) - 5} more pairs' if len(pairs) > 5 else ''
        raise ValueError(
            'vocabulary: the text encoder cannot distinguish these classes, '
            f'their embeddings are the same: {shown}{more}; give names that '
            'it knows (many know only English), or another encoder')


@contextmanager
def _for_good(text_encoder: BaseTextEncoder):
    """Encode a vocabulary: in float32, on the GPU where there is one."""
    device, allowed = text_encoder.device, text_encoder.allow_tf32
    text_encoder.allow_tf32 = False
    if device.type == 'cpu' and torch.cuda.is_available():
        text_encoder.cuda()
    try:
        yield
    finally:
        text_encoder.allow_tf32 = allowed
        text_encoder.to(device)


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
