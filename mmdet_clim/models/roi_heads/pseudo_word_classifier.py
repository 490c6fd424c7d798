# Licensed under the Apache License, Version 2.0.
from typing import Optional

import torch
from torch import Tensor, nn

from mmdet_clim.checks import check_range
from mmdet_clim.models.pseudo_words import write_regions
from mmdet_clim.models.text_encoders import (
    BaseTextEncoder,
    build_text_encoder,
)
from mmdet_clim.registry import MODELS

from .softmax_zero_shot_classifier import SoftmaxZeroShotClassifier
from .zero_shot_classifier import ZeroShotClassifier


@MODELS.register_module()
class PseudoWordClassifier(ZeroShotClassifier):
    r"""Classify regions that speak the language of a text encoder, as BARON.

    A linear layer maps a region to a few *pseudo-words*, vectors in the place
    of a text's own words; the frozen text encoder reads them as the sentence
    :math:`s`, and the logit of class :math:`c` is
    :math:`\tau\,\cos(s, t_c) + b` (REFERENCE.md, section 3: 4 words,
    :math:`\tau = 25`, :math:`b` from -20). In training words are dropped at
    random, though never all of a region. Gradients reach the words through
    the encoder, which is in no state dict and does not learn. All regions
    are encoded at once.

    Args:
        in_features (int): Width of the region features.
        vocabulary: As :class:`ZeroShotClassifier` takes it.
        text_encoder (dict): Config of a text encoder that takes words, see
            :meth:`BaseTextEncoder.encode_words`. It is kept. BARON's is of
            an ``OpenCLIPTextEncoder`` with ``before_projection=True``.
        num_words (int): Pseudo-words of a region.
        drop_prob (float): Chance of a word to be dropped in training.
        class_encoder (dict, optional): Config of the encoder of the config's
            classes where it is not the text encoder, such as a
            ``PrecomputedTextEncoder`` of a published checkpoint's own class
            vectors. Other vocabularies are read by the text encoder.
        **kwargs: The other arguments of :class:`ZeroShotClassifier`.

    Raises:
        TypeError: If the text encoder takes no words.
        ValueError: If ``num_words`` is not positive or more than it takes, or
            ``drop_prob`` is no probability.
    """

    def __init__(self,
                 in_features: int,
                 vocabulary,
                 text_encoder: dict,
                 num_words: int = 4,
                 drop_prob: float = 0.5,
                 class_encoder: Optional[dict] = None,
                 **kwargs) -> None:
        # Asked for by the next line.
        self.class_encoder_cfg = class_encoder
        super().__init__(
            in_features, vocabulary, text_encoder=text_encoder, **kwargs)
        check_range(1, num_words=num_words)
        check_range(0, 1, drop_prob=drop_prob)
        self.num_words = num_words
        self.drop_prob = drop_prob
        # In the place of the layer to the width of the class embeddings.
        self.projection = nn.Linear(in_features,
                                    num_words * self.text_encoder.word_dim)
        with torch.no_grad():  # what can not work stops here
            self._encode(
                torch.zeros(1, num_words, self.text_encoder.word_dim), 0)

    def _class_encoder(self) -> BaseTextEncoder:
        # First asked for before this class's own __init__ goes on.
        if 'text_encoder' not in dict(self.named_children()):
            self.text_encoder = super()._class_encoder()
            if self.class_encoder_cfg is not None:
                return build_text_encoder(self.class_encoder_cfg)
        return self.text_encoder

    def read(self, embeddings: Tensor) -> Tensor:
        """Pseudo-words of regions as sentences.

        Args:
            embeddings (Tensor): Shape (N, num_words * word_dim), what
                :meth:`embed` returns.

        Returns:
            Tensor: (N, D) float32 unit vectors.
        """
        return self._encode(
            embeddings.unflatten(1, (self.num_words, -1)),
            self.drop_prob if self.training else 0)

    def _encode(self, words: Tensor, drop_prob: float) -> Tensor:
        """Words (N, num_words, word_dim) to unit vectors (N, D)."""
        return self.text_encoder.encode_words(*write_regions(words, drop_prob))

    def score(self, embeddings: Tensor) -> Tensor:
        """Pseudo-words (N, num_words * word_dim) to logits (N, C), float32."""
        return super().score(self.read(embeddings))


@MODELS.register_module()
class SoftmaxPseudoWordClassifier(PseudoWordClassifier,
                                  SoftmaxZeroShotClassifier):
    r"""Pseudo-words whose classes compete, with a learned background.

    As :class:`PseudoWordClassifier` reads a region, and with the logits of
    :class:`SoftmaxZeroShotClassifier`. BARON's with an FPN, and the distilled
    ones (REFERENCE.md, section 3): :math:`\tau = 50`, which is not learned.

    Args:
        ``*args``, ``**kwargs``: The arguments of both but
            ``learn_temperature``.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, learn_temperature=False, **kwargs)
