# Licensed under the Apache License, Version 2.0.
"""Two-stage detectors as one graph, from pixels to boxes."""
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmcv.transforms import Pad
from mmdet.models.dense_heads import RPNHead
from mmdet.models.detectors import TwoStageDetector
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from torch import Tensor, nn

from mmdet_clim.models.detectors import FViT
from mmdet_clim.models.roi_heads import (
    ProposalScoreRoIHead,
    ZeroShotClassifier,
    ZeroShotMixin,
)
from mmdet_clim.models.roi_heads.rescoring import ensemble_scores

from .onnx_image import OnnxImage
from .onnx_operators import ANY_SCORE, NMSOperator

# mmdet's limit of a box's growth in one regression.
MAX_LOG_RATIO = float(np.abs(np.log(16 / 1000)))


class OnnxDetector(nn.Module):
    """A two-stage detector with its pre- and post-processing.

    The image is resized as mmdet's ``Resize(keep_ratio=True)`` does, to a
    scale that is fixed at export; the classes are an input.

    Args:
        detector (TwoStageDetector): With an RPN, a ``StandardRoIHead`` and a
            zero-shot box head, on one feature map or several. :class:`FViT`
            too.
        scale (tuple[int, int]): Longest and shortest side in pixels that an
            image is resized into.
        padding (Pad, optional): That of the test pipeline.

    Raises:
        TypeError: If the detector has other parts.
    """

    def __init__(self,
                 detector: TwoStageDetector,
                 scale: tuple[int, int],
                 padding: Pad | None = None) -> None:
        super().__init__()
        _check(detector)
        self.detector = detector.eval()
        self.prepare = OnnxImage(detector.data_preprocessor, scale, padding)

    @property
    def classifiers(self) -> list[ZeroShotClassifier]:
        """Those whose class embeddings are an input."""
        return [self.detector.roi_head.bbox_head.fc_cls]

    @property
    def base_names(self) -> list[str]:
        """The classes that were trained with boxes."""
        head = self.detector.roi_head
        if isinstance(self.detector,
                      FViT) and head.trained_vocabulary is not None:
            return list(head.trained_vocabulary.base_names)
        return list(head.bbox_head.vocabulary.base_names)

    def forward(self, image: Tensor, class_embeddings: Tensor,
                is_base: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Detect.

        Args:
            image (Tensor): uint8, shape (H, W, 3), BGR.
            class_embeddings (Tensor): Unit vectors (C, D).
            is_base (Tensor): Bool (C,): whether each class was trained with
                boxes. Only :class:`FViT` looks at it.

        Returns:
            tuple[Tensor, Tensor, Tensor]: ``boxes`` (n, 4), absolute xyxy
            pixels of the image; ``scores`` (n,), best first; ``labels`` (n,).
        """
        inputs, size, factors = self.prepare(image)
        rcnn = self.detector.test_cfg.rcnn
        x, encoded = self.features(inputs)
        proposals, objectness = self.propose(x, size)
        boxes, scores = self.classify(x, encoded, proposals, objectness, size,
                                      class_embeddings, is_base)
        boxes = boxes / factors
        kept = NMSOperator.apply(boxes, scores.t(), rcnn.nms.iou_threshold,
                                 rcnn.score_thr, rcnn.max_per_img)
        labels, index = kept[:, 0], kept[:, 1]
        scores = scores[index, labels]
        order = scores.argsort(descending=True)[:rcnn.max_per_img]
        return boxes[index[order]], scores[order], labels[order]

    def features(self, inputs: Tensor):
        """Maps of the pyramid, and what a frozen tower made of the image."""
        detector = self.detector
        if not isinstance(detector, FViT):
            return detector.extract_feat(inputs), None
        maps, encoded = detector.backbone.encode(inputs)
        x = detector.backbone.pyramid(maps)
        return (detector.neck(x) if detector.with_neck else x), encoded

    def propose(self, x: Sequence[Tensor],
                size: Tensor) -> tuple[Tensor, Tensor]:
        """Proposals (n, 4), absolute xyxy, best first, and scores (n,)."""
        head: RPNHead = self.detector.rpn_head
        cfg = self.detector.test_cfg.rpn
        boxes, scores, levels = [], [], []
        for level, (logits, deltas) in enumerate(zip(*head(x))):
            score = logits[0].permute(1, 2, 0).flatten().sigmoid()
            delta = deltas[0].permute(1, 2, 0).reshape(-1, 4)
            anchors = _anchors(head, level, logits)
            score, order = score.sort(descending=True)
            if cfg.nms_pre > 0:
                score, order = score[:cfg.nms_pre], order[:cfg.nms_pre]
            boxes.append(
                _decode(head.bbox_coder, anchors[order], delta[order], size))
            scores.append(score)
            levels.append(torch.zeros_like(score) + level)
        box, score = torch.cat(boxes), torch.cat(scores)
        # Boxes of different levels do not suppress each other.
        apart = torch.cat(levels)[:, None] * (box.max() + 1)
        extent = box[:, 2:] - box[:, :2]
        valid = (extent > max(cfg.get('min_bbox_size', -1), -1)).all(1)
        score = torch.where(valid, score, score.new_tensor(2 * ANY_SCORE))
        kept = NMSOperator.apply(box + apart, score[None],
                                 cfg.nms.iou_threshold, ANY_SCORE,
                                 cfg.max_per_img)[:, 1]
        return box[kept], score[kept]

    def classify(self, x: Sequence[Tensor], encoded, proposals: Tensor,
                 objectness: Tensor, size: Tensor, class_embeddings: Tensor,
                 is_base: Tensor) -> tuple[Tensor, Tensor]:
        """Refined boxes (n, 4) and scores (n, C)."""
        roi_head: StandardRoIHead = self.detector.roi_head
        # A ZeroShotMixin, and a head of mmdet, whose types are unknown.
        head: Any = roi_head.bbox_head
        rois = torch.cat([torch.zeros_like(proposals[:, :1]), proposals], 1)
        regions = _pool(roi_head.bbox_roi_extractor, x, rois)
        if roi_head.with_shared_head:
            regions = roi_head.shared_head(regions)
        head.fc_cls.class_embeddings = class_embeddings
        logits, deltas = head(regions)
        boxes = _decode(head.bbox_coder, proposals, deltas, size)
        if isinstance(self.detector, FViT):
            scores = self._ensemble(logits.softmax(1), encoded, rois,
                                    is_base)[:, :-1]
        else:
            scores = head.loss_cls.get_activation(logits)[:, :-1]
        if isinstance(roi_head, ProposalScoreRoIHead):
            weight = roi_head.proposal_weight
            scores = scores**(1 - weight) * objectness[:, None]**weight
        return boxes, scores

    def _ensemble(self, scores: Tensor, encoded, rois: Tensor,
                  is_base: Tensor) -> Tensor:
        roi_head = self.detector.roi_head
        regions = self.detector.backbone.region_features_of(encoded, rois)
        texts = roi_head.bbox_head.fc_cls.all_embeddings()
        clip = (roi_head.clip_temperature * regions @ texts.t()).softmax(1)
        return ensemble_scores(scores, clip, is_base, roi_head.alpha,
                               roi_head.beta)


def _check(detector: nn.Module) -> None:
    """Raise a TypeError that says what can not be exported."""
    if not isinstance(detector, TwoStageDetector):
        raise TypeError('export: expected a two-stage detector, got '
                        f'{type(detector).__name__}')
    roi_head = detector.roi_head
    for what, part, types in (
        ('rpn_head', detector.rpn_head, RPNHead),
        ('rpn_head.bbox_coder', detector.rpn_head.bbox_coder,
         DeltaXYWHBBoxCoder),
        ('roi_head', roi_head, StandardRoIHead),
        ('bbox_head', roi_head.bbox_head, ZeroShotMixin),
        ('bbox_roi_extractor', roi_head.bbox_roi_extractor,
         SingleRoIExtractor),
    ):
        if not isinstance(part, types):
            raise TypeError(f'export: expected {types.__name__} as {what}, '
                            f'got {type(part).__name__}')
    if not roi_head.bbox_head.reg_class_agnostic:
        raise TypeError(
            'export: expected reg_class_agnostic=True in the '
            'bbox_head, since the classes are an input of the graph')


def _anchors(head: RPNHead, level: int, logits: Tensor) -> Tensor:
    """Anchors of a level (h * w * A, 4), as its generator lays them out."""
    generator = head.prior_generator
    base = generator.base_anchors[level].to(logits)
    width, height = generator.strides[level]
    xs = torch.arange(logits.shape[3], device=logits.device) * width
    ys = torch.arange(logits.shape[2], device=logits.device) * height
    y, x = torch.meshgrid(ys, xs, indexing='ij')
    shifts = torch.stack([x, y, x, y], -1).reshape(-1, 1, 4).to(logits)
    return (shifts + base).reshape(-1, 4)


def _decode(coder: DeltaXYWHBBoxCoder, boxes: Tensor, deltas: Tensor,
            size: Tensor) -> Tensor:
    """Mmdet's ``delta2bbox``, clipped to a size that is known at run time."""
    deltas = deltas * deltas.new_tensor(coder.stds) + deltas.new_tensor(
        coder.means)
    extent = boxes[:, 2:] - boxes[:, :2]
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 + extent * deltas[:, :2]
    growth = deltas[:, 2:].clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    half = extent * growth.exp() / 2
    corners = torch.cat([centre - half, centre + half], 1)
    limit = size.flip(0).repeat(2)
    return torch.minimum(corners.clamp(min=0), limit)


def _pool(extractor: SingleRoIExtractor, x: Sequence[Tensor],
          rois: Tensor) -> Tensor:
    """RoI features: every level is pooled, and each RoI takes its own."""
    x = x[:extractor.num_inputs]
    pooled: list[Tensor] = [
        layer(level, rois) for level, layer in zip(x, extractor.roi_layers)
    ]
    if len(pooled) == 1:
        return pooled[0]
    levels = extractor.map_roi_levels(rois, len(pooled))[:, None, None, None]
    chosen = pooled[0]
    for number, of_level in enumerate(pooled[1:], 1):
        chosen = torch.where(levels == number, of_level, chosen)
    return chosen
