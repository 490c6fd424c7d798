# Licensed under the Apache License, Version 2.0.
from typing import Any, Sequence

import torch
from mmdet.models.detectors import GLIP
from mmdet.structures import SampleList
from mmengine.structures import InstanceData
from torch import Tensor

from ..grounding_prompts import SEPARATOR, GroundingPrompt
from .text_conditioned import TextConditionedFamily

# mmdet's own of fine-tuning.
LOSSES = dict(
    loss_cls=dict(
        type='mmdet.FocalLoss',
        use_sigmoid=True,
        gamma=2.0,
        alpha=0.25,
        loss_weight=1.0),
    loss_bbox=dict(type='mmdet.GIoULoss', loss_weight=2.0),
    loss_centerness=dict(
        type='mmdet.CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0))


class GLIPFamily(TextConditionedFamily):
    """GLIP: regions of the neck, and an anchor is matched by its box."""

    detector_type = GLIP
    matches = ('box', )

    def complete(self, model: dict) -> None:
        """See the base class."""
        for key, loss in LOSSES.items():
            model['bbox_head'].setdefault(key, loss)

    def map_width(self, detector: GLIP) -> int:
        """See the base class; mmdet writes it into the code."""
        return 256

    def prompts(self, phrases: Sequence[str], tokenizer: Any,
                max_tokens: int) -> list[GroundingPrompt]:
        """See the base class; it was trained without the last separator."""
        prompts = super().prompts(phrases, tokenizer, max_tokens)
        for prompt in prompts:
            prompt.text = prompt.text.removesuffix(SEPARATOR)
        return prompts

    def predict_of_texts(self, detector: GLIP, levels: Sequence[Tensor],
                         texts: dict[str, Tensor],
                         samples: SampleList) -> list[InstanceData]:
        """See the base class."""
        return detector.bbox_head.predict(
            levels, texts, samples, rescale=False)

    def token_logits(self,
                     detector: GLIP,
                     levels: Sequence[Tensor],
                     texts: dict[str, Tensor],
                     samples: SampleList,
                     places: None = None) -> tuple[list[Tensor], None]:
        """See the base class; the places are all anchors."""
        of_levels, *_ = detector.bbox_head(levels, texts)
        return [torch.cat(of_levels, 1)], None

    def losses_of_texts(self, detector: GLIP, levels: Sequence[Tensor],
                        texts: dict[str, Tensor], samples: SampleList,
                        match: str) -> dict[str, Tensor]:
        """See the base class."""
        return detector.bbox_head.loss(levels, texts, samples)
