# Licensed under the Apache License, Version 2.0.
"""Text embeddings of classes that a published checkpoint holds."""
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.datasets import CocoDataset
from torch import Tensor

from mmdet_clim.files import atomic_path
from mmdet_clim.models.roi_heads import ZeroShotClassifier
from mmdet_clim.models.text_encoders import encode_classes
from mmdet_clim.registry import MODELS

from .building import TEXT_ENCODER

# (C, D), and Detectron2's (D, C + 1), whose last column is the background.
ROWS = r'roi_head\.bbox_head\.cls_embeddings'
COLUMNS = (r'roi_heads?\.(?:box_predictor|bbox_head)\.(?:\d+\.)?'
           r'(?:cls_score|fc_cls)\.zs_weight')
#: Texts that are encoded to compare them with a file's.
MAX_TEXTS = 64


class ClassVectors(NamedTuple):
    """Class embeddings of a file.

    Args:
        source (str): Their name in it; of a cascade, of its first head.
        vectors (Tensor): Shape (C, D).
    """
    source: str
    vectors: Tensor


def find_class_vectors(weights: Mapping[str, Tensor]) -> ClassVectors | None:
    """The class embeddings of a checkpoint, None if it has none.

    Args:
        weights (Mapping[str, Tensor]): As the checkpoint names them.
    """
    for name, value in weights.items():
        if value.ndim == 2 and re.fullmatch(ROWS, name):
            return ClassVectors(name, value)
        if value.ndim == 2 and re.fullmatch(COLUMNS, name):
            return ClassVectors(name, value[:, :-1].t())
    return None


def names_of_rows(count: int, names: Sequence[str]) -> list[str] | None:
    """Whose embeddings the rows are.

    Args:
        count (int): Of the rows.
        names (Sequence[str]): The config's classes.

    Returns:
        list[str]: The config's classes where there are as many of them, both
        being in the order of the category ids; COCO's 80 in their order for
        80 rows. None where neither fits.
    """
    if count == len(names):
        return list(names)
    coco = CocoDataset.METAINFO['classes']
    return list(coco) if count == len(coco) else None


def write_class_vectors(found: ClassVectors, names: Sequence[str],
                        prompts: str, file: Path) -> None:
    """Write a vocabulary with its embeddings, for PrecomputedTextEncoder.

    Args:
        found (ClassVectors): Of a checkpoint.
        names (Sequence[str]): Of its rows.
        prompts (str): What they were made of; a note in the file.
        file (Path): ``.npz``.

    Raises:
        ValueError: If a vector is zero or not finite.
    """
    vectors = found.vectors.float()
    norms = vectors.norm(dim=1)
    bad = [
        name for name, norm in zip(names, norms.tolist())
        if not 0 < norm < float('inf')
    ]
    if bad:
        raise ValueError(f'{found.source}: expected finite, non-zero vectors, '
                         f'got others for {bad[:5]}')
    with atomic_path(file) as beside, open(beside, 'wb') as stream:
        np.savez(
            stream,
            names=np.array(names),
            vectors=F.normalize(vectors, dim=1).numpy(),
            prompts=np.array(prompts))


def class_agreement(found: ClassVectors, classifier: ZeroShotClassifier,
                    classifier_cfg: Mapping) -> float:
    """Mean cosine of a file's class embeddings and the config's texts.

    As many classes are compared, evenly spread, as make ``MAX_TEXTS`` texts,
    and two at least: prompts differ for all classes or for none.

    Args:
        found (ClassVectors): Of a checkpoint.
        classifier (ZeroShotClassifier): Of the detector; it has the classes.
        classifier_cfg (Mapping): Its config, with the text encoder.

    Returns:
        float: At most 1.

    Raises:
        ValueError: If it can not be said; the message says why.
    """
    names = names_of_rows(len(found.vectors), classifier.vocabulary.names)
    if names is None:
        raise ValueError(f'{len(found.vectors)} rows for '
                         f'{len(classifier.vocabulary)} classes')
    encoder_cfg = classifier_cfg['text_encoder']
    of_clip = str(encoder_cfg['type']).endswith(TEXT_ENCODER)
    pretrained = encoder_cfg.get('pretrained')
    if of_clip and not Path(str(pretrained)).is_file():
        raise ValueError("the text encoder's weights are not a local file: "
                         f'pretrained={pretrained!r}')
    # The config's encoder need not know other classes.
    known = {n: i for i, n in enumerate(classifier.vocabulary.names)}
    rows = [row for row, name in enumerate(names) if name in known]
    number = min(max(2, MAX_TEXTS // len(classifier.templates)), len(rows))
    if not number:
        raise ValueError('they have no class in common')
    rows = [
        rows[place]
        for place in torch.linspace(0,
                                    len(rows) - 1, number).long().tolist()
    ]
    compared = classifier.vocabulary.subset(known[names[row]] for row in rows)
    ours = encode_classes(
        MODELS.build(encoder_cfg), compared, classifier.templates)
    theirs = found.vectors[rows].to(ours)
    if theirs.shape != ours.shape:
        raise ValueError(f'vectors of width {theirs.shape[1]}, and of '
                         f"{ours.shape[1]} of the config's encoder")
    return F.cosine_similarity(theirs, ours).mean().item()
