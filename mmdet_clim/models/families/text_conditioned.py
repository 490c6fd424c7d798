# Licensed under the Apache License, Version 2.0.
from abc import abstractmethod
from typing import Any, Sequence, Union

import numpy as np
from mmdet.models.detectors import GLIP, GroundingDINO
from mmdet.structures import SampleList
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet_clim.datasets.vocabulary import Vocabulary, build_vocabulary

from ..grounding_prompts import GroundingPrompt, pack_phrases
from ..region_readers import ExtractedImages, GroundingReader
from ..region_readers.other_maps import encoded_before
from .base import FAMILIES, DetectorFamily

GroundingDetector = Union[GLIP, GroundingDINO]


class TextConditionedFamily(DetectorFamily):
    """Detectors that look at an image for the sake of a text.

    Attributes:
        matches (tuple[str]): How grounding data can be matched; see
            ``GroundingObjective``.
    """

    readers = (GroundingReader, )
    reads_texts = True
    matches: tuple[str, ...]

    def set_vocabulary(self,
                       detector: GroundingDetector,
                       vocabulary,
                       embeddings: None = None) -> Vocabulary:
        """See that the detector can read these classes at once.

        It holds none: they are handed to it with each image.

        Args:
            detector (GLIP or GroundingDINO): The detector.
            vocabulary: See the base class.
            embeddings (None): There are none.

        Raises:
            ValueError: If two are the same for its language model, or their
                tokens are more than it reads, so that it would never find the
                last ones.
        """
        vocabulary = build_vocabulary(vocabulary)
        tokenizer = detector.language_model.tokenizer
        read: dict[tuple, str] = {}
        for name in vocabulary.names:
            other = read.setdefault(tuple(tokenizer(name)['input_ids']), name)
            if other != name:
                raise ValueError(
                    'vocabulary: the language model cannot distinguish these '
                    'classes, their tokens are the same: '
                    f'{other!r} and {name!r}')
        if detector.test_cfg.get('chunked_size', -1) > 0:
            return vocabulary
        names = list(vocabulary.names)
        tokenized = detector.get_tokens_and_prompts(names, True)[0]
        tokens = tokenized.input_ids.shape[1]
        most = detector.language_model.max_tokens
        if tokens > most:
            raise ValueError(
                f'vocabulary: expected names of at most {most} tokens '
                f'together, got {tokens} of {len(names)} names; '
                'model.test_cfg.chunked_size has them read a few at a time')
        return vocabulary

    def onnx_graph(self, detector, scale, padding=None) -> nn.Module:
        """Words and pixels are fused: there is no vocabulary to leave open."""
        raise TypeError(
            f'export: {type(detector).__name__} takes its classes as a prompt '
            'together with the image; only detectors that compare embeddings '
            'have a vocabulary that can stay open')

    @abstractmethod
    def complete(self, model: dict) -> None:
        """Add what training needs and configs that only test leave out.

        Args:
            model (dict): Config of the detector, which is changed.
        """

    def encode(self,
               detector: GroundingDetector,
               prompts: Sequence[str],
               ids: Sequence[np.ndarray] | None = None) -> dict[str, Tensor]:
        """Prompts to what the detector's layers take of them.

        Args:
            detector (GLIP or GroundingDINO): With a ``language_model``.
            prompts (Sequence[str]): N texts.
            ids (Sequence[np.ndarray], optional): Their tokens, where they are
                known.
        """
        return detector.language_model(list(prompts), ids=ids)

    def max_tokens(self, detector: GroundingDetector) -> int:
        """Tokens of the longest prompt, special ones included."""
        return detector.language_model.max_tokens

    @abstractmethod
    def map_width(self, detector: GroundingDetector) -> int:
        """Tokens that a map of positives has."""

    def prompts(self, phrases: Sequence[str], tokenizer: Any,
                max_tokens: int) -> list[GroundingPrompt]:
        """Phrases to prompts that the detector's language model takes whole.

        Args:
            phrases (Sequence[str]): Captions or class names, clean.
            tokenizer: Of the language model.
            max_tokens (int): See :meth:`max_tokens`.
        """
        return pack_phrases(phrases,
                            lambda text: len(tokenizer.tokenize(text)),
                            max_tokens)

    def predict_prompt(self, detector: GroundingDetector,
                       feats: ExtractedImages,
                       prompt: str) -> list[InstanceData]:
        """Boxes that fit one prompt, in pixels of the network input.

        As the detector's own ``predict``, from what a reader has seen of the
        images and the prompt already.

        Args:
            detector (GLIP or GroundingDINO): In evaluation mode.
            feats (ExtractedImages): The images. Of this prompt are, if there,
                ``seen['prompt']``, ``['encoder']`` and ``['decoder']``.
            prompt (str): What is looked for.
        """
        samples = feats.samples()
        positive, text, *_ = detector.get_tokens_positive_and_prompts(
            (prompt, ), True, None, None)
        if not isinstance(text, str):
            # By test_cfg.chunked_size, of which one prompt is one chunk.
            (positive, ), (text, ) = positive, text
        for sample in samples:
            sample.token_positive_map = positive
        seen = feats.seen
        if 'decoder' in seen:
            return detector.bbox_head.predict(
                **seen['decoder'], rescale=False, batch_data_samples=samples)
        texts = seen.get('prompt')
        if texts is None:
            texts = self.encode(detector, [text] * len(samples))
        # Copies, as a head may write into what it gets.
        levels = tuple(level.detach().clone() for level in feats.levels)
        with encoded_before(detector, feats):
            return self.predict_of_texts(detector, levels, texts, samples)

    @abstractmethod
    def predict_of_texts(self, detector: GroundingDetector,
                         levels: Sequence[Tensor], texts: dict[str, Tensor],
                         samples: SampleList) -> list[InstanceData]:
        """The boxes, with encoded texts and ``token_positive_map``."""

    @abstractmethod
    def token_logits(self,
                     detector: GroundingDetector,
                     levels: Sequence[Tensor],
                     texts: dict[str, Tensor],
                     samples: SampleList,
                     places: Any = None) -> tuple[list[Tensor], Any]:
        """What a detector says of the tokens of texts, and in which places.

        Args:
            detector (GLIP or GroundingDINO): In evaluation mode.
            levels (Sequence[Tensor]): The neck's maps (N, C, H, W).
            texts (dict): What :meth:`encode` gave.
            samples (list[DetDataSample]): N samples.
            places (optional): What this gave of another detector, to look
                where that one did.

        Returns:
            tuple: Logits (N, P, T) of one or more layers, the last one that by
            which boxes are scored; and the places.
        """

    def losses(self,
               detector: GroundingDetector,
               levels: Sequence[Tensor],
               samples: SampleList,
               match: str = 'box') -> dict[str, Tensor]:
        """The detector's own losses on grounding data.

        Args:
            detector (GLIP or GroundingDINO): The detector.
            levels (Sequence[Tensor]): The neck's maps (N, C, H, W).
            samples (list[DetDataSample]): N samples of
                :func:`~mmdet_clim.models.objectives.grounding.objective.grounding_sample`.
            match (str): One of :attr:`matches`.

        Returns:
            dict: As the detector's head names them.

        Raises:
            ValueError: If there are more boxes than the detector tells apart.
        """
        texts = self.encode(detector, [sample.text for sample in samples],
                            [sample.token_ids for sample in samples])
        return self.losses_of_texts(detector, levels, texts, samples, match)

    @abstractmethod
    def losses_of_texts(self, detector: GroundingDetector,
                        levels: Sequence[Tensor], texts: dict[str, Tensor],
                        samples: SampleList, match: str) -> dict[str, Tensor]:
        """The losses, with encoded texts and ``positive_maps`` (n, T)."""


def text_family(kind: type) -> TextConditionedFamily | None:
    """The family of a class of detectors, None if it reads no texts.

    Args:
        kind (type): Of a config, say.
    """
    read = (of for of in FAMILIES if isinstance(of, TextConditionedFamily))
    return next((of for of in read if issubclass(kind, of.detector_type)),
                None)
