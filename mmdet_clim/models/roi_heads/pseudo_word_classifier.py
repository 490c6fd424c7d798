# Licensed under the Apache License, Version 2.0.
import torch
from torch import Tensor, nn

from mmdet_clim.models.text_encoders import BaseTextEncoder
from mmdet_clim.registry import MODELS

from .zero_shot_classifier import ZeroShotClassifier


@MODELS.register_module()
class PseudoWordClassifier(ZeroShotClassifier):
    r"""Classify regions that speak the language of a text encoder, as BARON.

    A linear layer maps a region to a few *pseudo-words*, vectors in the place
    of a text's own words; the frozen text encoder reads them as the sentence
    :math:`s`, and the logit of class :math:`c` is
    :math:`\tau\,\cos(s, t_c) + b` (REFERENCE.md, section 3: 4 words,
    :math:`\tau = 25`, :math:`b` from -20). Gradients reach the words through
    the encoder, which is in no state dict and does not learn. All regions
    are encoded at once.

    Args:
        in_features (int): Width of the region features.
        vocabulary: As :class:`ZeroShotClassifier` takes it.
        text_encoder (dict): Config of a text encoder that takes words, see
            :meth:`BaseTextEncoder.encode_words`. It is kept.
        num_words (int): Pseudo-words of a region.
        value_path (bool): Whether the encoder's last block is replaced by its
            value path for regions; class names are read as ever.
        **kwargs: The other arguments of :class:`ZeroShotClassifier`.

    Raises:
        TypeError: If the text encoder takes no words.
        ValueError: If ``num_words`` is not positive or more than it takes, or
            it has no value path.
    """

    def __init__(self,
                 in_features: int,
                 vocabulary,
                 text_encoder: dict,
                 num_words: int = 4,
                 value_path: bool = False,
                 **kwargs) -> None:
        super().__init__(in_features, vocabulary, text_encoder, **kwargs)
        if num_words < 1:
            raise ValueError(
                f'num_words: expected a count >= 1, got {num_words}')
        self.num_words = num_words
        self.value_path = value_path
        # In the place of the layer to the width of the class embeddings.
        self.projection = nn.Linear(in_features,
                                    num_words * self.text_encoder.word_dim)
        with torch.no_grad():  # what can not work stops here
            self.read(self.embed(torch.zeros(1, in_features)))

    def _class_encoder(self) -> BaseTextEncoder:
        # First asked for before this class's own __init__ goes on.
        if 'text_encoder' not in dict(self.named_children()):
            self.text_encoder = super()._class_encoder()
        return self.text_encoder

    def read(self, embeddings: Tensor) -> Tensor:
        """Pseudo-words of regions as sentences.

        Args:
            embeddings (Tensor): Shape (N, num_words * word_dim), what
                :meth:`embed` returns.

        Returns:
            Tensor: (N, D) float32 unit vectors.
        """
        words = embeddings.unflatten(1, (self.num_words, -1))
        lengths = torch.full((len(words), ),
                             self.num_words,
                             device=words.device)
        return self.text_encoder.encode_words(words, lengths, self.value_path)

    def score(self, embeddings: Tensor) -> Tensor:
        """Pseudo-words (N, num_words * word_dim) to logits (N, C), float32."""
        return super().score(self.read(embeddings))
