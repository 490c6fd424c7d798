# Licensed under the Apache License, Version 2.0.
from copy import copy
from typing import Any, Sequence

import numpy as np
import torch
from mmdet.models.dense_heads import GroundingDINOHead
from mmdet.models.detectors import GroundingDINO
from mmdet.models.task_modules.assigners.match_cost import BaseMatchCost
from mmdet.registry import TASK_UTILS
from mmdet.structures import DetDataSample, SampleList
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_overlaps
from mmdet.utils import reduce_mean
from mmengine.structures import InstanceData
from torch import Tensor, nn

from .text_conditioned import TextConditionedFamily
from .transformer import Queries, beginning_at

# A logit at which the focal loss of a negative, and its gradient, is nothing.
SILENT = -20.0


class InsideCost(BaseMatchCost):
    """The share of a query's box that lies outside a region, in [0, 1]."""

    def __call__(self,
                 pred_instances: InstanceData,
                 gt_instances: InstanceData,
                 img_meta: dict | None = None,
                 **kwargs: Any) -> Tensor:
        """(Q, n), of Q queries and n regions; absolute xyxy pixels."""
        inside = bbox_overlaps(
            pred_instances.bboxes.float(), gt_instances.bboxes, mode='iof')
        return self.weight * (1 - inside)


# Grounding DINO's own cost of texts, and in the place of its two costs of
# boxes one that outweighs what queries commonly differ by in their texts.
TEXT_ASSIGNER = dict(
    type='mmdet.HungarianAssigner',
    match_costs=[
        dict(type='mmdet.BinaryFocalLossCost', weight=2.0),
        dict(type=InsideCost, weight=10.0),
    ])


def text_loss(head: GroundingDINOHead,
              samples: SampleList,
              hidden_states: Tensor,
              references: list[Tensor],
              memory_text: Tensor,
              text_token_mask: Tensor,
              enc_outputs_class: Tensor,
              enc_outputs_coord: Tensor,
              dn_meta: dict | None = None) -> Tensor:
    """The head's classification loss, of all its layers and the encoder's.

    A region's tokens go to the query inside it that reads them best, each
    query to one region. The other queries inside are silent on these tokens:
    one of them may be on the object too. On all other tokens, and outside,
    they are background. Denoising queries are left out, as a region is no
    object whose box could be restored.

    Args:
        head (GroundingDINOHead): The head.
        samples (list[DetDataSample]): N samples whose ``gt_instances`` have
            ``bboxes`` (n, 4), absolute xyxy, ``positive_maps`` (n, T) and
            ``text_token_mask`` (n, L).
        **others: What ``forward_transformer`` gave in training.

    Returns:
        Tensor: Scalar.
    """
    scores, boxes = head(hidden_states, references, memory_text,
                         text_token_mask)
    head.text_masks = text_token_mask
    first = 0 if dn_meta is None else dn_meta['num_denoising_queries']
    layers = list(zip(scores[:, :, first:], boxes[:, :, first:]))
    layers.append((enc_outputs_class, enc_outputs_coord))
    # The same weights, with another assigner.
    head = copy(head)
    head.assigner = TASK_UTILS.build(TEXT_ASSIGNER)
    return sum(
        _layer_loss(head, of_layer, places, samples)
        for of_layer, places in layers)


def _layer_loss(head: GroundingDINOHead, scores: Tensor, boxes: Tensor,
                samples: SampleList) -> Tensor:
    """The classification loss of one layer, whose queries are matched once.

    Args:
        head (GroundingDINOHead): With the assigner.
        scores (Tensor): Shape (N, Q, T), logits.
        boxes (Tensor): Shape (N, Q, 4), relative cxcywh.
        samples (list[DetDataSample]): N samples.
    """
    boxes = boxes.detach()
    with torch.no_grad():
        labels, *_, num_positive, num_negative = head.get_targets(
            list(scores), list(boxes),
            [sample.gt_instances for sample in samples],
            [sample.metainfo for sample in samples])
    labels = torch.stack(labels)
    silent = [
        _is_silent(*of_image)
        for of_image in zip(labels.any(2), boxes, samples)
    ]
    scores = scores.masked_fill(torch.stack(silent), SILENT)
    # Beyond a prompt's tokens there is nothing to learn.
    length = head.text_masks.shape[1]
    told = head.text_masks[:, None].expand(-1, scores.shape[1], -1)
    scores, labels = scores[..., :length][told], labels[..., :length][told]
    factor = scores.new_tensor(num_positive +
                               num_negative * head.bg_cls_weight)
    if head.sync_cls_avg_factor:
        factor = reduce_mean(factor)
    return head.loss_cls(scores, labels, avg_factor=factor.clamp(min=1))


def _is_silent(is_matched: Tensor, boxes: Tensor,
               sample: DetDataSample) -> Tensor:
    """Which query is no negative of which token, though not matched.

    Args:
        is_matched (Tensor): Bool (Q,).
        boxes (Tensor): Shape (Q, 4), relative cxcywh.
        sample (DetDataSample): The image.

    Returns:
        Tensor: Bool (Q, T).
    """
    regions = sample.gt_instances
    height, width = sample.img_shape
    places = bbox_cxcywh_to_xyxy(boxes.float())
    places = places * places.new_tensor([width, height] * 2)
    inside = bbox_overlaps(places, regions.bboxes, mode='iof') > 0.5
    return (inside.float() @ regions.positive_maps > 0) & ~is_matched[:, None]


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

    def sources(self, detector: GroundingDINO) -> tuple[str, ...]:
        """See the base class."""
        return ('encoder', 'query', 'neck')

    def complete(self, model: dict) -> None:
        """See the base class."""
        if not (model.get('train_cfg') or {}).get('assigner'):
            model['train_cfg'] = dict(
                model.get('train_cfg') or {}, assigner=ASSIGNER)

    def onnx_graph(self, detector, scale, padding=None) -> nn.Module:
        """Its classes are a part of the graph; see the base class."""
        # That package needs this one.
        from mmdet_clim.apis.onnx_grounding import OnnxGroundingDetector
        return OnnxGroundingDetector(detector, scale, padding)

    def encode(self,
               detector: GroundingDINO,
               prompts: Sequence[str],
               ids: Sequence[np.ndarray] | None = None) -> dict[str, Tensor]:
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
                         levels: Sequence[Tensor], texts: dict[str, Tensor],
                         samples: SampleList) -> list[InstanceData]:
        """See the base class."""
        return detector.bbox_head.predict(
            **detector.forward_transformer(levels, texts, samples),
            rescale=False,
            batch_data_samples=samples)

    def token_logits(
            self,
            detector: GroundingDINO,
            levels: Sequence[Tensor],
            texts: dict[str, Tensor],
            samples: SampleList,
            places: Queries | None = None) -> tuple[list[Tensor], Queries]:
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
                        levels: Sequence[Tensor], texts: dict[str, Tensor],
                        samples: SampleList, match: str) -> dict[str, Tensor]:
        """See the base class.

        With ``match='text'`` a box tells where to look for its phrase, and
        there is :func:`text_loss` alone.
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
