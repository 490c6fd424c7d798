# Licensed under the Apache License, Version 2.0.
"""Names that a detector may take for each other, found before training."""
import difflib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.logging import print_log
from torch import Tensor

from mmdet_clim.models.text_encoders import (
    DEFAULT_TEMPLATES,
    build_text_encoder,
    encode_classes,
)

from .finetuning import classifying_parts

#: Names that are spelled so much alike are pointed out, too.
SPELLED_ALIKE = 0.85
#: How much less like a name another one may be that is suggested.
MARGIN = 0.1
#: Suggestions, and pairs that one message has room for.
SHOWN = 10


class AlikeNames(NamedTuple):
    """Two names and what they share.

    Args:
        one, other (str): The names.
        cosine (float): Of their embeddings.
    """

    one: str
    other: str
    cosine: float


def alike_names(names: Sequence[str], embeddings: Tensor,
                threshold: float) -> list[AlikeNames]:
    """Pairs of names that look or sound alike.

    Args:
        names (Sequence[str]): C names.
        embeddings (Tensor): Their unit vectors (C, D).
        threshold (float): Least cosine. Pairs that are spelled alike need
            none.

    Returns:
        list[AlikeNames]: The most alike first.
    """
    cosines = embeddings @ embeddings.t()
    pairs = [
        AlikeNames(one, names[j], cosines[i, j].item())
        for i, one in enumerate(names) for j in range(i)
        if cosines[i, j] >= threshold or difflib.SequenceMatcher(
            None, one.lower(), names[j].lower()).ratio() >= SPELLED_ALIKE
    ]
    return sorted(pairs, key=lambda pair: -pair.cosine)


def confusable_names(names: Sequence[str], embeddings: Tensor,
                     others: Sequence[str], of_others: Tensor,
                     threshold: float) -> list[AlikeNames]:
    """Of each name the nearest of others that are none.

    Args:
        names (Sequence[str]): C names.
        embeddings (Tensor): Their unit vectors (C, D).
        others (Sequence[str]): N names that are not among them.
        of_others (Tensor): Theirs (N, D).
        threshold (float): Least cosine.

    Returns:
        list[AlikeNames]: ``other`` is the suggestion; the most alike first,
        none suggested twice.
    """
    if not others:
        return []
    cosines, nearest = (embeddings @ of_others.t()).max(1)
    found = [
        AlikeNames(name, others[place], cosine) for name, place, cosine in zip(
            names, nearest.tolist(), cosines.tolist()) if cosine >= threshold
    ]
    found.sort(key=lambda pair: -pair.cosine)
    best: dict[str, AlikeNames] = {}
    for pair in found:
        best.setdefault(pair.other, pair)
    return list(best.values())


def point_out_names(cfg: Config, new: Sequence[str], known: Sequence[str],
                    threshold: float) -> None:
    """Tell the user of names that may be taken for each other.

    Args:
        cfg (Config): Of the detector. One that reads its classes with each
            image embeds no name alone: of it, spelling alone is compared.
        new (Sequence[str]): The user's names.
        known (Sequence[str]): These, and the words to keep.
        threshold (float): Least cosine.

    Raises:
        ValueError: If the detector can not tell two names apart.
    """
    owner = next(classifying_parts(cfg.model), None)
    more: list[str] = []
    embeddings = torch.eye(len(known))
    if owner is not None:
        encoder = build_text_encoder(owner.classifier.text_encoder)
        templates = owner.classifier.get('templates', DEFAULT_TEMPLATES)
        embeddings = encode_classes(encoder, list(known), templates)
        taken = {name.lower() for name in known}
        try:
            more = [
                name for name in CocoDataset.METAINFO['classes']
                if name not in taken
            ]
            of_more = encode_classes(encoder, more, templates)
        except KeyError:
            # A file of embeddings, which lacks them.
            more = []
    yours = set(new)
    pairs = [
        pair for pair in alike_names(known, embeddings, threshold)
        if pair.one in yours or pair.other in yours
    ]
    if pairs:
        print_log(
            'similar names, which the detector may confuse: '
            f'{_shown(pairs)}', 'current', 30)
    others = [name for name in known if name not in yours]
    if owner is None or not more + others:
        return
    place = {name: i for i, name in enumerate(known)}
    of_others = embeddings[[place[name] for name in others]]
    if more:
        of_others = torch.cat([of_others, of_more])
    found = confusable_names(new, embeddings[[place[n] for n in new]],
                             [*others, *more], of_others, threshold - MARGIN)
    if found:
        print_log('names that yours could be confused with; add those that '
                  f'occur in your images: {_shown(found)}')


def _shown(pairs: Sequence[AlikeNames]) -> str:
    text = ', '.join(f'{pair.one!r} and {pair.other!r} ({pair.cosine:.2f})'
                     for pair in pairs[:SHOWN])
    more = len(pairs) - SHOWN
    return f'{text} and {more} more' if more > 0 else text
