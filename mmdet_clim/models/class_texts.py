# Licensed under the Apache License, Version 2.0.
"""The classes of a detector, their texts, and which of them are base."""
from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet_clim.datasets.vocabulary import Vocabulary, build_vocabulary

from .constants import Constants
from .text_encoders import (
    DEFAULT_TEMPLATES,
    BaseTextEncoder,
    Templates,
    check_distinct,
    encode_classes,
    resolve_templates,
)


class ClassTexts(Constants):
    """One owner of what a head, its loss and an objective know of classes.

    None of it is in a buffer; see :class:`Constants`.

    Args:
        vocabulary: Anything that ``build_vocabulary`` reads.
        templates (str or Sequence[str]): Prompts with one ``{}`` for the
            name, or ``'vild'`` or ``'imagenet'``.
    """

    def __init__(self,
                 vocabulary,
                 templates: Templates = DEFAULT_TEMPLATES) -> None:
        super().__init__()
        self.templates = resolve_templates(templates)
        self._set(build_vocabulary(vocabulary))
        self.has_embeddings = False

    def __len__(self) -> int:
        return len(self.vocabulary)

    def _set(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self['is_base'] = torch.tensor(vocabulary.is_base)
        self['image_counts'] = torch.tensor(vocabulary.image_counts
                                            or [1] * len(vocabulary)).float()

    @property
    def embeddings(self) -> Tensor:
        """Unit vectors (C, D), float32."""
        return self['embeddings']

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
                encode_classes(text_encoder, self.vocabulary, self.templates))
        return self.embeddings

    def set_embeddings(self, embeddings: Tensor) -> None:
        """Take embeddings (C, D) of any norm."""
        self['embeddings'] = F.normalize(embeddings.detach().float(), dim=1)
        self.has_embeddings = True

    def set_vocabulary(self,
                       vocabulary,
                       embeddings: Optional[Tensor] = None) -> Vocabulary:
        """Replace the classes.

        Args:
            vocabulary: Anything that ``build_vocabulary`` reads.
            embeddings (Tensor, optional): Their embeddings (C, D), of any
                norm; without them, they are encoded when next asked for.

        Returns:
            Vocabulary: The vocabulary now in use.

        Raises:
            ValueError: If the embeddings have another count than the
                vocabulary or another width than those before, or two of them
                are the same.
        """
        vocabulary = build_vocabulary(vocabulary)
        if embeddings is not None:
            if embeddings.ndim != 2 or len(embeddings) != len(vocabulary):
                raise ValueError(
                    f'embeddings: expected shape ({len(vocabulary)}, D) for '
                    f'{len(vocabulary)} classes, got '
                    f'{tuple(embeddings.shape)}')
            check_distinct(vocabulary.names, embeddings)
            width = self.embeddings.shape[1] if self.has_embeddings else None
            if width not in (None, embeddings.shape[1]):
                raise ValueError(
                    f'embeddings: this classifier has width {width}, got '
                    f'{embeddings.shape[1]}')
            self.set_embeddings(embeddings)
        else:
            self.has_embeddings = False
        self._set(vocabulary)
        return vocabulary
