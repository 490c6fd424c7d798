# Licensed under the Apache License, Version 2.0.
"""Detectors with a dense head as one graph, from pixels to boxes."""
from collections.abc import Sequence

import torch
from mmcv.transforms import Pad
from mmdet.models.dense_heads import YOLOXHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.detectors import SingleStageDetector
from mmdet.models.task_modules.coders import (
    DeltaXYWHBBoxCoder,
    DistancePointBBoxCoder,
    TBLRBBoxCoder,
)
from torch import Tensor, nn

from mmdet_clim.models.dense_heads import ZeroShotDenseMixin, ZeroShotLayer

from .onnx_image import OnnxImage
from .onnx_operators import ANY_SCORE, NMSOperator

# Of a head that keeps all that NMS leaves.
ALL = 1 << 30
CODERS = (DeltaXYWHBBoxCoder, DistancePointBBoxCoder, TBLRBBoxCoder)


class OnnxDenseDetector(nn.Module):
    """A detector with a dense head, with its pre- and post-processing.

    For heads that make boxes as mmdet's ``BaseDenseHead`` does (FCOS, ATSS,
    RetinaNet, RTMDet, and so on) or as ``YOLOXHead``.

    Args:
        detector (SingleStageDetector): Its head is a zero-shot one.
        scale (tuple[int, int]): Longest and shortest side in pixels that an
            image is resized into.
        padding (Pad, optional): That of the test pipeline.

    Raises:
        TypeError: If the head is another, or its NMS.
    """

    def __init__(self,
                 detector: SingleStageDetector,
                 scale: tuple[int, int],
                 padding: Pad | None = None) -> None:
        super().__init__()
        _check(detector)
        self.detector = detector.eval()
        self.prepare = OnnxImage(detector.data_preprocessor, scale, padding)

    @property
    def classifiers(self) -> list[ZeroShotLayer]:
        """Those whose class embeddings are an input."""
        return self.detector.bbox_head.class_layers

    @property
    def base_names(self) -> list[str]:
        """The classes that were trained with boxes."""
        return list(self.detector.bbox_head.vocabulary.base_names)

    def forward(self, image: Tensor, class_embeddings: Tensor,
                is_base: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Detect.

        Args:
            image (Tensor): uint8, shape (H, W, 3), BGR.
            class_embeddings (Tensor): Unit vectors (C, D).
            is_base (Tensor): Not looked at.

        Returns:
            tuple[Tensor, Tensor, Tensor]: ``boxes`` (n, 4), absolute xyxy
            pixels of the image; ``scores`` (n,), best first; ``labels`` (n,).
        """
        inputs, size, factors = self.prepare(image)
        for classifier in self.classifiers:
            classifier.class_embeddings = class_embeddings
        head: BaseDenseHead = self.detector.bbox_head
        maps = head(self.detector.extract_feat(inputs))
        classes = torch._shape_as_tensor(class_embeddings)[0]
        if isinstance(head, YOLOXHead):
            found, most = self._one_class_each(maps, classes), ALL
        else:
            found = self._classes_apart(maps, classes, size)
            most = head.test_cfg.max_per_img
        boxes, scores, labels = found
        boxes = boxes / factors
        least = head.test_cfg.get('min_bbox_size', -1)
        if least >= 0 and not isinstance(head, YOLOXHead):
            large = (boxes[:, 2:] - boxes[:, :2] > least).all(1)
            boxes, scores, labels = boxes[large], scores[large], labels[large]
        kept = self._suppress(boxes, scores, labels, most)
        return boxes[kept], scores[kept], labels[kept]

    def _classes_apart(self, maps: Sequence[Sequence[Tensor]], classes: Tensor,
                       size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As ``BaseDenseHead``: each class of a position is a candidate.

        Returns:
            tuple[Tensor, Tensor, Tensor]: Boxes (n, 4), absolute xyxy pixels
            of the network's input, scores (n,) and labels (n,).
        """
        head, cfg = self.detector.bbox_head, self.detector.bbox_head.test_cfg
        dim = head.bbox_coder.encode_size
        most = cfg.get('nms_pre', -1)
        boxes, scores, labels = [], [], []
        for level, (logits, sides, *factor) in enumerate(zip(*maps)):
            priors = head.prior_generator.single_level_grid_priors(
                logits.shape[-2:], level, logits.dtype, logits.device)
            score = _flat(logits, classes).sigmoid().flatten()
            index = (score > cfg.get('score_thr', 0)).nonzero()[:, 0]
            score, order = score[index].sort(descending=True)
            index = index[order]
            if most > 0:
                score, index = score[:most], index[:most]
            place = torch.div(index, classes, rounding_mode='floor')
            if factor:
                score = score * _flat(factor[0], 1)[place, 0].sigmoid()
            boxes.append(
                head.bbox_coder.decode(priors[place],
                                       _flat(sides, dim)[place]))
            scores.append(score)
            labels.append(index - place * classes)
        box = torch.cat(boxes)
        if head.bbox_coder.clip_border:
            limit = size.flip(0).repeat(2)
            box = torch.minimum(box.clamp(min=0), limit)
        return box, torch.cat(scores), torch.cat(labels)

    def _one_class_each(self, maps: Sequence[Sequence[Tensor]],
                        classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As ``YOLOXHead``: the best class of a position is a candidate.

        Returns:
            tuple[Tensor, Tensor, Tensor]: As of :meth:`_classes_apart`.
        """
        head: YOLOXHead = self.detector.bbox_head
        logits, sides, objectness = maps
        priors = torch.cat([
            head.prior_generator.single_level_grid_priors(
                of_level.shape[-2:],
                level,
                of_level.dtype,
                of_level.device,
                with_stride=True) for level, of_level in enumerate(logits)
        ])
        scores, labels = torch.cat([_flat(x, classes)
                                    for x in logits]).sigmoid().max(1)
        scores = scores * torch.cat([_flat(x, 1)
                                     for x in objectness])[:, 0].sigmoid()
        boxes = head._bbox_decode(priors,
                                  torch.cat([_flat(x, 4) for x in sides]))
        kept = (scores >= head.test_cfg.score_thr).nonzero()[:, 0]
        return boxes[kept], scores[kept], labels[kept]

    def _suppress(self, boxes: Tensor, scores: Tensor, labels: Tensor,
                  most: int) -> Tensor:
        """Indices of the boxes that NMS leaves, best first."""
        nms = self.detector.bbox_head.test_cfg.nms
        if not nms.get('class_agnostic', False):
            # As mmcv's batched_nms; of no boxes, there is no largest.
            largest = torch.cat([boxes.flatten(), boxes.new_zeros(1)]).max()
            boxes = boxes + (labels.float() * (largest + 1))[:, None]
        return NMSOperator.apply(boxes, scores[None], nms.iou_threshold,
                                 ANY_SCORE, most)[:, 1]


def _flat(of_level: Tensor, width) -> Tensor:
    """A map (1, A * width, H, W) as rows (H * W * A, width)."""
    return of_level[0].permute(1, 2, 0).reshape(-1, width)


def _check(detector: SingleStageDetector) -> None:
    """Raise a TypeError that says what can not be exported."""
    head = detector.bbox_head
    name = type(head).__name__
    if not isinstance(head, ZeroShotDenseMixin):
        raise TypeError('export: expected a mmdet_clim.ZeroShotHead as '
                        f'bbox_head, got {name}')
    if not isinstance(head, YOLOXHead):
        kind = type(head)
        if not (isinstance(head, BaseDenseHead)
                and kind.predict_by_feat is BaseDenseHead.predict_by_feat
                and kind._predict_by_feat_single
                is BaseDenseHead._predict_by_feat_single and
                kind._bbox_post_process is BaseDenseHead._bbox_post_process):
            raise TypeError(
                f'export: {name} decodes boxes in its own way; '
                'expected a head that decodes them like FCOS, ATSS, '
                'RTMDet or YOLOX')
        if not head.use_sigmoid_cls:
            raise TypeError(
                f'export: expected sigmoid class scores in {name}, got '
                'a softmax')
        if not isinstance(head.bbox_coder, CODERS):
            raise TypeError('export: expected one of '
                            f'{[c.__name__ for c in CODERS]} as bbox_coder, '
                            f'got {type(head.bbox_coder).__name__}')
    nms = head.test_cfg.get('nms')
    if nms is None or nms.get('type', 'nms') != 'nms':
        raise TypeError("export: expected an NMS of the type 'nms' in "
                        f'test_cfg, got {nms}')
