# Licensed under the Apache License, Version 2.0.
from typing import Dict, List, Sequence

from mmdet.models.detectors import GLIP
from mmdet.structures import SampleList
from mmengine.structures import InstanceData
from torch import Tensor

from .base import TextAdapter
from .prompts import SEPARATOR, GroundingPrompt


class GLIPAdapter(TextAdapter):
    """GLIP: regions of the neck, and an anchor is matched by its box."""

    detector_type = GLIP
    sources = ('neck', )
    matches = ('box', )

    def prompts(self, detector: GLIP,
                phrases: Sequence[str]) -> List[GroundingPrompt]:
        """See the base class; it was trained without the last separator."""
        prompts = super().prompts(detector, phrases)
        for prompt in prompts:
            prompt.text = prompt.text.removesuffix(SEPARATOR)
        return prompts

    def predict_of_texts(self, detector: GLIP, levels: Sequence[Tensor],
                         texts: Dict[str, Tensor],
                         samples: SampleList) -> List[InstanceData]:
        """See the base class."""
        return detector.bbox_head.predict(
            levels, texts, samples, rescale=False)

    def losses_of_texts(self, detector: GLIP, levels: Sequence[Tensor],
                        texts: Dict[str, Tensor], samples: SampleList,
                        match: str) -> Dict[str, Tensor]:
        """See the base class."""
        return detector.bbox_head.loss(levels, texts, samples)
