# Licensed under the Apache License, Version 2.0.
import math

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdet_clim.checks import check_finite, check_positive, check_range
from mmdet_clim.datasets.vocabulary import Vocabulary, build_vocabulary
from mmdet_clim.registry import MODELS

from ..class_texts import ClassTexts
from ..pseudo_words import write_regions
from ..text_encoders import (
    DEFAULT_TEMPLATES,
    BaseTextEncoder,
    Templates,
    build_text_encoder,
    encode_phrases,
)


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
        temperature (float): Multiplier of the cosine, positive.
        bias (float, optional): First value of the learnable bias; None for no
            bias.
        out_features (int, optional): Must equal the size of the vocabulary
            where it is given (mmdet's heads give it).

    Raises:
        ValueError: If ``out_features`` differs from the number of classes,
            ``temperature`` is not positive, or ``bias`` is no number.
    """

    def __init__(self,
                 in_features: int,
                 vocabulary,
                 text_encoder: dict,
                 templates: Templates = DEFAULT_TEMPLATES,
                 temperature: float = 25.0,
                 bias: float | None = -20.0,
                 out_features: int | None = None,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        check_positive(temperature=temperature)
        check_finite(bias=bias)
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
    def templates(self) -> tuple[str, ...]:
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
                       embeddings: Tensor | None = None) -> Vocabulary:
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
            unit = F.normalize(embeddings.float(), dim=1)
            return self._logits(self.class_texts.cosines(unit))

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
                 out_features: int | None = None,
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
        cosines = self.class_texts.cosines(vectors)
        return torch.cat([cosines, vectors @ background[:, None]], 1)

    def score(self, embeddings: Tensor) -> Tensor:
        """Region embeddings (N, D), any norm, to logits (N, C + 1)."""
        with torch.autocast(embeddings.device.type, enabled=False):
            return self._scale() * self.all_cosines(
                F.normalize(embeddings.float(), dim=1))

    def _scale(self) -> float | Tensor:
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
                 class_encoder: dict | None = None,
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
        words = embeddings.unflatten(1, (self.num_words, -1))
        return self._encode(words, self.drop_prob if self.training else 0)

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
