# Licensed under the Apache License, Version 2.0.
import math
from typing import Optional, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdet_clim.datasets.vocabulary import build_vocabulary
from mmdet_clim.registry import MODELS

from .zero_shot_classifier import ZeroShotClassifier

# The logarithm of a probability next to 1, of which float32 still has the
# odds.
SUREST = -1e-6


@MODELS.register_module()
class SoftmaxZeroShotClassifier(ZeroShotClassifier):
    r"""Classes by frozen text embeddings, the background by a learned one.

    The logit of class :math:`c` is :math:`\tau\,\cos(W x, t_c)`, that of the
    background :math:`\tau\,\cos(W x, t_\text{bg})`, where
    :math:`t_\text{bg}` is learned, and :math:`\log\tau` too (REFERENCE.md,
    section 5: :math:`\tau` from 50) unless it is fixed (section 3).

    Args:
        in_features (int): Width of the region features.
        vocabulary: Anything that ``build_vocabulary`` reads.
        temperature (float): First value of :math:`\tau`, positive.
        out_features (int, optional): Must equal the number of classes and the
            background where it is given (mmdet's heads give it).
        learn_temperature (bool): Whether :math:`\tau` is learned.
        **kwargs: ``text_encoder`` and ``templates`` of
            :class:`ZeroShotClassifier`.

    Raises:
        ValueError: If ``out_features`` is another.
    """

    def __init__(self,
                 in_features: int,
                 vocabulary,
                 temperature: float = 50.0,
                 out_features: Optional[int] = None,
                 learn_temperature: bool = True,
                 **kwargs) -> None:
        vocabulary = build_vocabulary(vocabulary)
        if out_features not in (None, len(vocabulary) + 1):
            raise ValueError(
                f'out_features: expected {len(vocabulary) + 1} for '
                f'{len(vocabulary)} classes and the background, got '
                f'{out_features}')
        super().__init__(
            in_features,
            vocabulary,
            temperature=temperature,
            bias=None,
            **kwargs)
        self.log_temperature = nn.Parameter(
            torch.tensor(math.log(temperature))) if learn_temperature else None
        self.background = nn.Parameter(
            torch.randn(self.class_embeddings.shape[1]))

    def _with_background(self, texts: Tensor) -> Tensor:
        """Unit vectors (T, D), and behind them that of the background."""
        background = F.normalize(self.background.float(), dim=0)
        return torch.cat([texts, background[None]])

    def all_embeddings(self) -> Tensor:
        """Unit vectors (C + 1, D) of the classes and the background."""
        return self._with_background(self.class_embeddings)

    def all_cosines(self, vectors: Tensor) -> Tensor:
        """Unit vectors (N, D) to cosines (N, C + 1) with all of these.

        Of a class of several phrases, that of the best one.
        """
        background = F.normalize(self.background.float(), dim=0)
        return torch.cat(
            [self.class_texts.cosines(vectors), vectors @ background[:, None]],
            1)

    def score(self, embeddings: Tensor) -> Tensor:
        """Region embeddings (N, D), any norm, to logits (N, C + 1)."""
        with torch.autocast(embeddings.device.type, enabled=False):
            return self._scale() * self.all_cosines(
                F.normalize(embeddings.float(), dim=1))

    def _scale(self) -> Union[float, Tensor]:
        if self.log_temperature is None:
            return self.temperature
        return self.log_temperature.exp()

    def text_log_odds(self, vectors: Tensor, texts: Tensor) -> Tensor:
        """See the base class; the texts compete, with the background."""
        with torch.autocast(vectors.device.type, enabled=False):
            logits = self._scale() * F.normalize(
                vectors.float(), dim=1) @ self._with_background(texts).t()
            log_p = logits.log_softmax(1)[:, :-1].clamp(max=SUREST)
            return log_p - (-log_p.expm1()).log()
