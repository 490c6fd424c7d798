# Licensed under the Apache License, Version 2.0.
from typing import Optional, Sequence

from torch import Tensor, nn

from mmdet_clim.datasets.vocabulary import build_vocabulary
from mmdet_clim.models.text_encoders import (
    DEFAULT_TEMPLATES,
    BaseTextEncoder,
    encode_classes,
)


class ClassTexts(nn.Module):
    """The classes that tags index, as texts; encoded once.

    Args:
        vocabulary: Anything that ``build_vocabulary`` reads.
        templates (Sequence[str]): Prompts with one ``{}`` for the name.
    """

    def __init__(self,
                 vocabulary,
                 templates: Sequence[str] = DEFAULT_TEMPLATES) -> None:
        super().__init__()
        self.vocabulary = build_vocabulary(vocabulary)
        self.templates = tuple(templates)
        # No buffer: EMA would copy it before it is filled.
        self._embeddings: Optional[Tensor] = None

    def __len__(self) -> int:
        return len(self.vocabulary)

    def forward(self, text_encoder: BaseTextEncoder) -> Tensor:
        """Unit vectors (C, D) of the classes, where the encoder is."""
        if self._embeddings is None:
            self._embeddings = encode_classes(text_encoder,
                                              self.vocabulary.names,
                                              self.templates)
        self._embeddings = self._embeddings.to(text_encoder.device)
        return self._embeddings
