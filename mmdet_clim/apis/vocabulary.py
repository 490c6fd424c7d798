# Licensed under the Apache License, Version 2.0.
"""The classes of a trained detector, replaced."""

from torch import Tensor, nn

from mmdet_clim.datasets.class_names import split_names
from mmdet_clim.datasets.vocabulary import Vocabulary
from mmdet_clim.models.families import TakesVocabulary, family_of

__all__ = ['TakesVocabulary', 'parse_names', 'reads_texts', 'set_vocabulary']


def reads_texts(detector: nn.Module) -> bool:
    """Whether a detector reads its classes with each image.

    Args:
        detector (nn.Module): GLIP and (MM-)Grounding DINO do.
    """
    return family_of(detector).reads_texts


def parse_names(texts: str) -> list[str]:
    """Class names from one string, separated as mmdet's prompts are.

    Args:
        texts (str): Such as ``'cat . traffic light . dog .'``; see
            :func:`~mmdet_clim.datasets.class_names.split_names`.

    Returns:
        list[str]: The names, in order.

    Raises:
        ValueError: If there is none.

    Example:
        >>> parse_names('cat . traffic light .')
        ['cat', 'traffic light']
    """
    names = split_names(texts)
    if not names:
        raise ValueError("texts: expected class names separated by ' . ', got "
                         f'{texts!r}')
    return names


def set_vocabulary(detector: nn.Module,
                   vocabulary,
                   embeddings: Tensor | None = None) -> Vocabulary:
    """Replace the classes of a trained detector.

    A grounding detector holds none: that it can read these is checked.

    Args:
        detector (nn.Module): With at least one part that
            :class:`TakesVocabulary`, or one that reads texts.
        vocabulary: Anything that
            :func:`~mmdet_clim.datasets.build_vocabulary` reads.
        embeddings (Tensor, optional): Text embeddings (C, D).

    Returns:
        Vocabulary: The vocabulary now in use.

    Raises:
        TypeError: If no part of the detector classifies by text.
        ValueError: If the vocabulary or the embeddings do not fit.
    """
    return family_of(detector).set_vocabulary(detector, vocabulary, embeddings)
