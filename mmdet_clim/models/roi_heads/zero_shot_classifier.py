# Licensed under the Apache License, Version 2.0.
from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdet_clim.datasets.vocabulary import Vocabulary, build_vocabulary
from mmdet_clim.models.class_texts import ClassTexts
from mmdet_clim.models.text_encoders import (
    DEFAULT_TEMPLATES,
    BaseTextEncoder,
    Templates,
    build_text_encoder,
    encode_phrases,
)
from mmdet_clim.registry import MODELS


@MODELS.register_module()
class ZeroShotClassifier(BaseModule):
    r"""Classify region features by frozen text embeddings of class names.

    The logit of class :math:`c` is
    :math:`\tau\,\cos(W x, t_c) + b` (REFERENCE.md, section 2: one linear
    layer :math:`W`, :math:`\tau=25` and a learnable :math:`b` from -20 on
    OV-COCO; :math:`\tau=50` and no bias on OV-LVIS).

    The class embeddings are not part of the state dict: they follow from the
    config, and :meth:`set_vocabulary` replaces them in a trained model.

    Args:
        in_features (int): Width of the region features.
        vocabulary: Anything that
            :func:`~mmdet_clim.datasets.build_vocabulary` reads.
        text_encoder (dict): Config of the text encoder, which embeds the
            class names and is not kept.
        templates (str or Sequence[str]): See ``resolve_templates``.
        temperature (float): Multiplier of the cosine.
        bias (float, optional): First value of the learnable bias; None for no
            bias.
        out_features (int, optional): Must equal the size of the vocabulary
            where it is given (mmdet's heads give it).

    Raises:
        ValueError: If ``out_features`` differs from the number of classes.
    """

    def __init__(self,
                 in_features: int,
                 vocabulary,
                 text_encoder: dict,
                 templates: Templates = DEFAULT_TEMPLATES,
                 temperature: float = 25.0,
                 bias: Optional[float] = -20.0,
                 out_features: Optional[int] = None,
                 init_cfg: Optional[dict] = None) -> None:
        super().__init__(init_cfg=init_cfg)
        vocabulary = build_vocabulary(vocabulary)
        self.class_texts = ClassTexts(vocabulary, templates)
        if out_features not in (None, len(vocabulary)):
            raise ValueError(
                f'out_features: the vocabulary has {len(vocabulary)} classes, '
                f'got {out_features}')
        self.text_encoder_cfg = text_encoder
        self.temperature = temperature
        # Not named `bias`: the initialisers of MMEngine set every parameter
        # of that name to 0.
        self.logit_bias = None if bias is None else nn.Parameter(
            torch.tensor(float(bias)))
        self.class_texts(self._class_encoder())
        self.projection = nn.Linear(in_features,
                                    self.class_embeddings.shape[1])

    @property
    def vocabulary(self) -> Vocabulary:
        """The classes, in index order."""
        return self.class_texts.vocabulary

    @property
    def templates(self) -> Tuple[str, ...]:
        """Prompts of the class names."""
        return self.class_texts.templates

    @property
    def class_embeddings(self) -> Tensor:
        """Text embeddings of the classes, unit vectors (C, D), float32."""
        return self.class_texts.embeddings

    @class_embeddings.setter
    def class_embeddings(self, embeddings: Tensor) -> None:
        self.class_texts.embeddings = embeddings

    def set_vocabulary(self,
                       vocabulary,
                       embeddings: Optional[Tensor] = None) -> Vocabulary:
        """Replace the classes, also in a trained model.

        Args:
            vocabulary: Anything that ``build_vocabulary`` reads.
            embeddings (Tensor, optional): Text embeddings of the classes,
                shape (C, D), or of their P phrases, of any norm. The text
                encoder is asked for them where they are not given.

        Returns:
            Vocabulary: The vocabulary now in use.

        Raises:
            ValueError: If the embeddings have another count than the
                vocabulary or another width than the trained projection, or
                two classes have the same.
        """
        vocabulary = build_vocabulary(vocabulary)
        if embeddings is None:
            embeddings = encode_phrases(self._class_encoder(), vocabulary,
                                        self.templates)
        return self.class_texts.set_vocabulary(vocabulary, embeddings)

    def _class_encoder(self) -> BaseTextEncoder:
        """What embeds class names; nothing here keeps it."""
        return build_text_encoder(self.text_encoder_cfg)

    def embed(self, features: Tensor) -> Tensor:
        """Region features (N, in_features) to embeddings (N, D), any norm."""
        return self.projection(features)

    def score(self, embeddings: Tensor) -> Tensor:
        """Region embeddings (N, D), any norm, to logits (N, C), float32."""
        with torch.autocast(embeddings.device.type, enabled=False):
            return self._logits(
                self.class_texts.cosines(
                    F.normalize(embeddings.float(), dim=1)))

    def _logits(self, cosines: Tensor) -> Tensor:
        """Cosines with texts (N, T) to logits."""
        logits = self.temperature * cosines
        return logits if self.logit_bias is None else logits + self.logit_bias

    def text_log_odds(self, vectors: Tensor, texts: Tensor) -> Tensor:
        """How sure it is of some texts, whatever its vocabulary.

        Args:
            vectors (Tensor): Shape (N, D), in the space of texts, any norm.
            texts (Tensor): Unit vectors (T, D).

        Returns:
            Tensor: Shape (N, T), float32: the logits of probabilities.
        """
        with torch.autocast(vectors.device.type, enabled=False):
            unit = F.normalize(vectors.float(), dim=1)
            return self._logits(unit @ texts.t())

    def forward(self, features: Tensor) -> Tensor:
        """Region features (N, in_features) to logits (N, C), float32."""
        return self.score(self.embed(features))
