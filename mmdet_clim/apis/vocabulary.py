# Licensed under the Apache License, Version 2.0.
"""The classes of a trained detector, replaced."""
from typing import (
    Dict,
    Iterator,
    List,
    Optional,
    Protocol,
    Sequence,
    runtime_checkable,
)

from torch import Tensor, nn

from mmdet_clim.datasets.class_names import split_names
from mmdet_clim.datasets.vocabulary import Vocabulary, build_vocabulary
from mmdet_clim.models.roi_heads import ZeroShotClassifier
from mmdet_clim.models.text_conditioned import text_adapter
from mmdet_clim.models.text_encoders import (
    BaseTextEncoder,
    build_text_encoder,
    encode_phrases,
)


@runtime_checkable
class TakesVocabulary(Protocol):
    """A part of a detector that classifies by text, such as a box head."""

    vocabulary: Vocabulary

    def set_vocabulary(self,
                       vocabulary,
                       embeddings: Optional[Tensor] = None) -> None:
        """Replace the classes."""


def reads_texts(detector: nn.Module) -> bool:
    """Whether a detector reads its classes with each image.

    Args:
        detector (nn.Module): GLIP and (MM-)Grounding DINO do.
    """
    return text_adapter(detector) is not None


def check_prompt(detector: nn.Module, names: Sequence[str]) -> None:
    """See that a grounding detector can read these classes at once.

    Args:
        detector (nn.Module): That :func:`reads_texts`.
        names (Sequence[str]): The classes.

    Raises:
        ValueError: If two are the same for its language model, or their
            tokens are more than it reads, so that it would never find the
            last ones.
    """
    tokenizer = detector.language_model.tokenizer
    read: Dict[tuple, str] = {}
    for name in names:
        other = read.setdefault(tuple(tokenizer(name)['input_ids']), name)
        if other != name:
            raise ValueError(
                'vocabulary: the language model can not tell these classes '
                f'apart, their tokens are the same: {other!r} and {name!r}')
    if detector.test_cfg.get('chunked_size', -1) > 0:
        return
    tokenized = detector.get_tokens_and_prompts(list(names), True)[0]
    tokens = tokenized.input_ids.shape[1]
    most = detector.language_model.max_tokens
    if tokens > most:
        raise ValueError(
            f'vocabulary: expected names of at most {most} tokens together, '
            f'got {tokens} of {len(names)} names; model.test_cfg.chunked_size '
            'has them read a few at a time')


def parse_names(texts: str) -> List[str]:
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


class VocabularySetter:
    """Replaces the classes of one detector, again and again.

    The text encoder is built at the first use and kept.

    Args:
        detector (nn.Module): With at least one part that
            :class:`TakesVocabulary`.

    Raises:
        TypeError: If no part of the detector classifies by text.
    """

    def __init__(self, detector: nn.Module) -> None:
        self.parts = list(_parts(detector))
        if not self.parts:
            raise TypeError(
                f'vocabulary: no part of {type(detector).__name__} classifies '
                'by text; give it a zero-shot head (mmdet_clim.'
                'ZeroShotBBoxHead, mmdet_clim.ZeroShotHead, ...)')
        self.classifiers = [
            module for module in detector.modules()
            if isinstance(module, ZeroShotClassifier)
        ]
        self._text_encoder: Optional[BaseTextEncoder] = None

    @property
    def vocabulary(self) -> Vocabulary:
        """The classes in use."""
        return self.parts[0].vocabulary

    def __call__(self,
                 vocabulary,
                 embeddings: Optional[Tensor] = None) -> Vocabulary:
        """Replace the classes of every part.

        Args:
            vocabulary: Anything that
                :func:`~mmdet_clim.datasets.build_vocabulary` reads.
            embeddings (Tensor, optional): Their text embeddings (C, D).

        Returns:
            Vocabulary: The vocabulary now in use.

        Raises:
            ValueError: If a name is empty, given twice or unknown to a
                precomputed text encoder, or the embeddings do not fit.
        """
        vocabulary = build_vocabulary(vocabulary)
        if embeddings is None and self._share_texts():
            first = self.classifiers[0]
            if self._text_encoder is None:
                self._text_encoder = build_text_encoder(first.text_encoder_cfg)
            embeddings = encode_phrases(self._text_encoder, vocabulary,
                                        first.templates)
        for part in self.parts:
            part.set_vocabulary(vocabulary, embeddings)
        return vocabulary

    def _share_texts(self) -> bool:
        """Whether all classifiers embed a name in the same way."""
        ways = [(c.text_encoder_cfg, c.templates) for c in self.classifiers]
        return bool(ways) and all(way == ways[0] for way in ways)


def set_vocabulary(detector: nn.Module,
                   vocabulary,
                   embeddings: Optional[Tensor] = None) -> Vocabulary:
    """Replace the classes of a trained detector, once.

    Args:
        detector (nn.Module): As :class:`VocabularySetter` takes it.
        vocabulary: As :class:`VocabularySetter` takes it.
        embeddings (Tensor, optional): Text embeddings (C, D).

    Returns:
        Vocabulary: The vocabulary now in use.

    Raises:
        TypeError: If no part of the detector classifies by text.
        ValueError: If the vocabulary or the embeddings do not fit.
    """
    return VocabularySetter(detector)(vocabulary, embeddings)


def _parts(module: nn.Module) -> Iterator[TakesVocabulary]:
    """The outermost parts: a box head, and not the classifier in it."""
    if isinstance(module, TakesVocabulary):
        yield module
        return
    for child in module.children():
        yield from _parts(child)
