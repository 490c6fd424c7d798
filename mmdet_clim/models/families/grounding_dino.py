# Licensed under the Apache License, Version 2.0.
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np
from mmcv.transforms import Pad
from mmdet.models.detectors import GroundingDINO
from mmdet.structures import SampleList
from mmengine.structures import InstanceData
from torch import Tensor, nn

from .queries import Queries, beginning_at
from .text_conditioned import TextConditionedFamily
from .text_loss import text_loss

# mmdet's own of fine-tuning.
ASSIGNER = dict(
    type='mmdet.HungarianAssigner',
    match_costs=[
        dict(type='mmdet.BinaryFocalLossCost', weight=2.0),
        dict(type='mmdet.BBoxL1Cost', weight=5.0, box_format='xywh'),
        dict(type='mmdet.IoUCost', iou_mode='giou', weight=2.0),
    ])


class GroundingDINOFamily(TextConditionedFamily):
    """Grounding DINO and MM-Grounding-DINO."""

    detector_type = GroundingDINO
    matches = ('box', 'text')

    def sources(self, detector: GroundingDINO) -> Tuple[str, ...]:
        """See the base class."""
        return ('encoder', 'query', 'neck')

    def complete(self, model: dict) -> None:
        """See the base class."""
        if not (model.get('train_cfg') or {}).get('assigner'):
            model['train_cfg'] = dict(
                model.get('train_cfg') or {}, assigner=ASSIGNER)

    def onnx_graph(self,
                   detector: GroundingDINO,
                   scale: Tuple[int, int],
                   padding: Optional[Pad] = None) -> nn.Module:
        """Its classes are a part of the graph; see the base class."""
        # That package needs this one.
        from mmdet_clim.apis.onnx_grounding import OnnxGroundingDetector
        return OnnxGroundingDetector(detector, scale, padding)

    def encode(
            self,
            detector: GroundingDINO,
            prompts: Sequence[str],
            ids: Optional[Sequence[np.ndarray]] = None) -> Dict[str, Tensor]:
        """See the base class."""
        texts = super().encode(detector, prompts, ids)
        texts['embedded'] = detector.text_feat_map(texts['embedded'])
        return texts

    def max_tokens(self, detector: GroundingDINO) -> int:
        """See the base class; the head takes no more than it has room for."""
        return min(super().max_tokens(detector),
                   detector.bbox_head.max_text_len)

    def map_width(self, detector: GroundingDINO) -> int:
        """See the base class."""
        return detector.bbox_head.max_text_len

    def predict_of_texts(self, detector: GroundingDINO,
                         levels: Sequence[Tensor], texts: Dict[str, Tensor],
                         samples: SampleList) -> List[InstanceData]:
        """See the base class."""
        return detector.bbox_head.predict(
            **detector.forward_transformer(levels, texts, samples),
            rescale=False,
            batch_data_samples=samples)

    def token_logits(
            self,
            detector: GroundingDINO,
            levels: Sequence[Tensor],
            texts: Dict[str, Tensor],
            samples: SampleList,
            places: Optional[Queries] = None) -> Tuple[List[Tensor], Queries]:
        """See the base class.

        The places are queries; there are logits of where the encoder chose
        them, and of what the decoder's last layer made of them.
        """
        with beginning_at(detector, places) as chosen:
            outputs = detector.forward_transformer(levels, texts, samples)
            scores, _ = detector.bbox_head(**outputs)
        encoded, began = chosen
        return [began.of(encoded), scores[-1]], began

    def losses_of_texts(self, detector: GroundingDINO,
                        levels: Sequence[Tensor], texts: Dict[str, Tensor],
                        samples: SampleList, match: str) -> Dict[str, Tensor]:
        """See the base class.

        With ``match='text'`` a box tells where to look for its phrase, and
        there is :func:`~.text_loss.text_loss` alone.
        """
        head = detector.bbox_head
        for sample, mask in zip(samples, texts['text_token_mask']):
            boxes = sample.gt_instances
            # By their labels, the denoising queries tell boxes apart.
            if len(boxes) > head.num_classes:
                raise ValueError(
                    f'bbox_head.num_classes: expected at least {len(boxes)}, '
                    'one per region of a mosaic, got '
                    f'{head.num_classes}')
            boxes.text_token_mask = mask.expand(len(boxes), -1)
        outputs = detector.forward_transformer(levels, texts, samples)
        if match == 'text':
            return dict(loss_cls=text_loss(head, samples, **outputs))
        return head.loss(**outputs, batch_data_samples=samples)
