# Licensed under the Apache License, Version 2.0.
from abc import ABCMeta, abstractmethod
from typing import Dict, List, Optional, Sequence, Tuple, Type, Union

from mmdet.models.detectors import GLIP, GroundingDINO
from mmdet.structures import SampleList
from mmengine.structures import InstanceData
from torch import Tensor, nn

from .prompts import GroundingPrompt, pack_phrases

GroundingDetector = Union[GLIP, GroundingDINO]


class TextAdapter(metaclass=ABCMeta):
    """What a family of text-conditioned detectors has of its own.

    Attributes:
        detector_type (type): The family.
        sources (tuple[str]): What its regions can be read from, the default
            first; see ``GroundingReader``.
        matches (tuple[str]): How grounding data can be matched; see
            ``GroundingObjective``.
    """

    detector_type: Type[nn.Module]
    sources: Tuple[str, ...]
    matches: Tuple[str, ...]

    def encode(self, detector: GroundingDetector,
               prompts: Sequence[str]) -> Dict[str, Tensor]:
        """Prompts to what the detector's layers take of them.

        Args:
            detector (GLIP or GroundingDINO): With a ``language_model``.
            prompts (Sequence[str]): N texts.
        """
        return detector.language_model(list(prompts))

    def max_tokens(self, detector: GroundingDetector) -> int:
        """Tokens of the longest prompt, special ones included."""
        return detector.language_model.max_tokens

    def prompts(self, detector: GroundingDetector,
                phrases: Sequence[str]) -> List[GroundingPrompt]:
        """Phrases to prompts that the detector's language model takes whole.

        Args:
            detector (GLIP or GroundingDINO): With a ``language_model``.
            phrases (Sequence[str]): Captions or class names, clean.
        """
        tokenizer = detector.language_model.tokenizer
        return pack_phrases(phrases,
                            lambda text: len(tokenizer.tokenize(text)),
                            self.max_tokens(detector))

    def predict(self,
                detector: GroundingDetector,
                levels: Sequence[Tensor],
                samples: SampleList,
                prompt: str,
                outputs: Optional[dict] = None) -> List[InstanceData]:
        """Boxes that fit one prompt, in pixels of the network input.

        As the detector's own ``predict``, from maps that are there already.

        Args:
            detector (GLIP or GroundingDINO): In evaluation mode.
            levels (Sequence[Tensor]): The neck's maps (N, C, H, W).
            samples (list[DetDataSample]): N samples with ``img_shape`` and
                ``batch_input_shape``.
            prompt (str): What is looked for.
            outputs (dict, optional): What the detector's transformer made of
                the images and the prompt, if it has.
        """
        positive, text, *_ = detector.get_tokens_positive_and_prompts(
            (prompt, ), True, None, None)
        if not isinstance(text, str):
            # By test_cfg.chunked_size, of which one prompt is one chunk.
            (positive, ), (text, ) = positive, text
        for sample in samples:
            sample.token_positive_map = positive
        if outputs is not None:
            return detector.bbox_head.predict(
                **outputs, rescale=False, batch_data_samples=samples)
        # Copies, as a head may write into what it gets.
        levels = tuple(level.detach().clone() for level in levels)
        return self.predict_of_texts(
            detector, levels, self.encode(detector, [text] * len(samples)),
            samples)

    @abstractmethod
    def predict_of_texts(self, detector: GroundingDetector,
                         levels: Sequence[Tensor], texts: Dict[str, Tensor],
                         samples: SampleList) -> List[InstanceData]:
        """The boxes, with encoded texts and ``token_positive_map``."""

    def losses(self,
               detector: GroundingDetector,
               levels: Sequence[Tensor],
               samples: SampleList,
               match: str = 'box') -> Dict[str, Tensor]:
        """The detector's own losses on grounding data.

        Args:
            detector (GLIP or GroundingDINO): The detector.
            levels (Sequence[Tensor]): The neck's maps (N, C, H, W).
            samples (list[DetDataSample]): N samples with ``text``, with
                ``tokens_positive``: per box a list of ``[begin, end]``
                characters, and ``gt_instances``: ``bboxes`` (n, 4), absolute
                xyxy, and ``labels`` (n,), which number the boxes.
            match (str): One of :attr:`matches`.

        Returns:
            dict: As the detector's head names them.

        Raises:
            ValueError: If there are more boxes than the detector tells apart.
        """
        for sample in samples:
            boxes = sample.gt_instances
            tokens = detector.language_model.tokenizer([sample.text],
                                                       return_tensors='pt')
            _, positive = detector.get_positive_map(tokens,
                                                    sample.tokens_positive)
            boxes.positive_maps = positive.bool().float().to(boxes.bboxes)
        texts = self.encode(detector, [sample.text for sample in samples])
        return self.losses_of_texts(detector, levels, texts, samples, match)

    @abstractmethod
    def losses_of_texts(self, detector: GroundingDetector,
                        levels: Sequence[Tensor], texts: Dict[str, Tensor],
                        samples: SampleList, match: str) -> Dict[str, Tensor]:
        """The losses, with encoded texts and ``positive_maps`` (n, T)."""
