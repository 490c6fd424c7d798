# Licensed under the Apache License, Version 2.0.
"""The classes of a detector, their texts, and which of them are base."""
import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet_clim.datasets.vocabulary import Vocabulary, build_vocabulary

from .frozen_tower import Constants
from .text_encoders import (
    DEFAULT_TEMPLATES,
    BaseTextEncoder,
    Templates,
    check_distinct,
    encode_phrases,
    resolve_templates,
)


class ClassTexts(Constants):
    """One owner of what a head, its loss and an objective know of classes.

    None of it is in a buffer; see :class:`Constants`.

    Args:
        vocabulary: Anything that ``build_vocabulary`` reads.
        templates (str or Sequence[str]): See ``resolve_templates``.
    """

    def __init__(self,
                 vocabulary,
                 templates: Templates = DEFAULT_TEMPLATES) -> None:
        super().__init__()
        self.templates = resolve_templates(templates)
        self._set(build_vocabulary(vocabulary))

    def __len__(self) -> int:
        return len(self.vocabulary)

    def _set(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.has_embeddings = False
        self['is_base'] = torch.tensor(vocabulary.is_base)
        self['image_counts'] = torch.tensor(vocabulary.image_counts
                                            or [1] * len(vocabulary)).float()
        self['class_of_text'] = torch.tensor(vocabulary.class_of_text)

    @property
    def embeddings(self) -> Tensor:
        """Unit vectors (C, D), float32; the mean of a class's phrases."""
        return self['embeddings']

    @embeddings.setter
    def embeddings(self, embeddings: Tensor) -> None:
        self['embeddings'] = embeddings
        self['phrases'] = None

    @property
    def text_embeddings(self) -> Tensor:
        """Unit vectors (P, D), float32, of all phrases of all classes."""
        phrases = self['phrases']
        return self.embeddings if phrases is None else phrases

    def cosines(self, vectors: Tensor) -> Tensor:
        """Unit vectors (N, D) to their cosines (N, C) with the classes.

        Of a class of several phrases, that of the best one.
        """
        if self['phrases'] is None:
            return vectors @ self.embeddings.t()
        of_phrases = vectors @ self['phrases'].t()
        index = self['class_of_text'].expand(len(vectors), -1)
        nothing = of_phrases.new_full((len(vectors), len(self)), -torch.inf)
        return nothing.scatter_reduce(1, index, of_phrases, 'amax')

    @property
    def is_base(self) -> Tensor:
        """Which classes are base, bool (C,)."""
        return self['is_base']

    @property
    def image_counts(self) -> Tensor:
        """Training images that show each class, float (C,); 1 if unknown."""
        return self['image_counts']

    def forward(self, text_encoder: BaseTextEncoder) -> Tensor:
        """Unit vectors (C, D) of the classes, encoded when first asked for."""
        if not self.has_embeddings:
            self.set_embeddings(
                encode_phrases(text_encoder, self.vocabulary, self.templates))
        return self.embeddings

    def set_embeddings(self, embeddings: Tensor) -> None:
        """Take embeddings (P, D) of the phrases, of any norm."""
        phrases = F.normalize(embeddings.detach().float(), dim=1)
        self.embeddings = phrases
        if self.vocabulary.phrases is not None:
            total = phrases.new_zeros(len(self), phrases.shape[1])
            label = self['class_of_text'].to(phrases.device)
            self.embeddings = F.normalize(
                total.index_add(0, label, phrases), dim=1)
            self['phrases'] = phrases
        self.has_embeddings = True

    def set_vocabulary(self, vocabulary, embeddings: Tensor) -> Vocabulary:
        """Replace the classes.

        Args:
            vocabulary: Anything that ``build_vocabulary`` reads.
            embeddings (Tensor): Embeddings (P, D) of its phrases, of any
                norm.

        Returns:
            Vocabulary: The vocabulary now in use.

        Raises:
            ValueError: If the embeddings have another count than the
                vocabulary or another width than those before, or two of them
                are the same.
        """
        vocabulary = build_vocabulary(vocabulary)
        texts = vocabulary.texts
        if embeddings.ndim != 2 or len(embeddings) != len(texts):
            raise ValueError(
                f'embeddings: expected shape ({len(texts)}, D) for '
                f'{len(vocabulary)} classes, got {tuple(embeddings.shape)}')
        check_distinct(texts, embeddings)
        width = self.embeddings.shape[1] if self.has_embeddings else None
        if width not in (None, embeddings.shape[1]):
            raise ValueError(
                f'embeddings: this classifier has width {width}, got '
                f'{embeddings.shape[1]}')
        self._set(vocabulary)
        self.set_embeddings(embeddings)
        return vocabulary
