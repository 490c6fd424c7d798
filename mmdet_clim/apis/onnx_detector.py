# Licensed under the Apache License, Version 2.0.
"""Two-stage detectors as one graph, from pixels to boxes."""
import json
import os
from pathlib import Path
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.models.dense_heads import RPNHead
from mmdet.models.detectors import TwoStageDetector
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from torch import Tensor, nn

from mmdet_clim.models.detectors import FViT
from mmdet_clim.models.roi_heads import ProposalScoreRoIHead, ZeroShotMixin
from mmdet_clim.models.roi_heads.fvit_roi_head import ensemble_scores

from .onnx_operators import NMSOperator, roi_align_of_onnx

# mmdet's limit of a box's growth in one regression.
MAX_LOG_RATIO = float(np.abs(np.log(16 / 1000)))
# What the sigmoid of no logit falls short of.
ANY_SCORE = -1.0


class Canvas(NamedTuple):
    """What an image is padded to, below and at the right.

    Attributes:
        size (tuple[int, int]): (width, height) in pixels.
        colour (tuple[float, float, float]): BGR.
    """

    size: Tuple[int, int]
    colour: Tuple[float, float, float]


class OnnxDetector(nn.Module):
    """A two-stage detector with its pre- and post-processing.

    The image is resized as mmdet's ``Resize(keep_ratio=True)`` does, to a
    scale that is fixed at export, and padded as ``Pad(size=...)`` does; the
    classes are an input.

    Args:
        detector (TwoStageDetector): With an RPN, a ``StandardRoIHead`` and a
            zero-shot box head, on one feature map or several. :class:`FViT`
            too.
        scale (tuple[int, int]): Longest and shortest side in pixels that an
            image is resized into.
        canvas (Canvas, optional): What it is padded to then, if it is.

    Raises:
        TypeError: If the detector has other parts.
    """

    def __init__(self,
                 detector: TwoStageDetector,
                 scale: Tuple[int, int],
                 canvas: Optional[Canvas] = None) -> None:
        super().__init__()
        _check(detector)
        self.detector = detector.eval()
        self.longest, self.shortest = max(scale), min(scale)
        self.canvas = canvas

    def forward(self, image: Tensor, class_embeddings: Tensor,
                is_base: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
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
        inputs, size, factors = self.preprocess(image)
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

    def preprocess(self, image: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """Resize, normalise and pad.

        Returns:
            tuple[Tensor, Tensor, Tensor]: Images (1, 3, H', W'); (height,
            width) that the image, with its canvas, fills of them; and the
            factors (4,) from the image to it, as of xyxy.
        """
        full = torch._shape_as_tensor(image)[:2].float()
        factor = torch.minimum(self.longest / full.max(),
                               self.shortest / full.min())
        size = (full * factor + .5).floor()
        factors = (size / full).flip(0).repeat(2)
        pixels = _resize(image, size).permute(2, 0, 1)[None].float()
        if self.canvas is not None:
            pixels, size = _on_canvas(pixels, size, self.canvas)
        preprocessor = self.detector.data_preprocessor
        if preprocessor._channel_conversion:
            pixels = pixels.flip(1)
        pixels = (pixels - preprocessor.mean) / preprocessor.std
        divisor = preprocessor.pad_size_divisor
        padded = ((size + divisor - 1) / divisor).floor() * divisor
        return _pad(pixels, padded - size), size, factors

    def features(self, inputs: Tensor):
        """Maps of the pyramid, and what a frozen tower made of the image."""
        detector = self.detector
        if not isinstance(detector, FViT):
            return detector.extract_feat(inputs), None
        maps, encoded = detector.backbone.encode(inputs)
        x = detector.backbone.pyramid(maps)
        return (detector.neck(x) if detector.with_neck else x), encoded

    def propose(self, x: Sequence[Tensor],
                size: Tensor) -> Tuple[Tensor, Tensor]:
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
                 is_base: Tensor) -> Tuple[Tensor, Tensor]:
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


def export_onnx(detector: TwoStageDetector,
                scale: Tuple[int, int],
                file: Path,
                canvas: Optional[Canvas] = None) -> None:
    """Write a detector as one ONNX graph (opset 17).

    Inputs are ``image``, uint8 (H, W, 3) in BGR of any size,
    ``class_embeddings``, float32 unit vectors (C, D) of any number of
    classes, and for :class:`FViT` ``is_base``, bool (C,). Outputs are
    ``boxes`` (n, 4), absolute xyxy pixels of the image, ``scores`` (n,) and
    ``labels`` (n,), best first.

    Args:
        detector (TwoStageDetector): As :class:`OnnxDetector` takes it.
        scale (tuple[int, int]): As :class:`OnnxDetector` takes it.
        file (Path): It never holds half of a graph.
        canvas (Canvas, optional): As :class:`OnnxDetector` takes it.

    Raises:
        TypeError: If the detector can not be exported.
    """
    graph = OnnxDetector(detector, scale, canvas)
    head = detector.roi_head.bbox_head
    embeddings = head.fc_cls.class_embeddings
    is_base = torch.tensor(head.vocabulary.is_base)
    # An odd size, so that no dimension is taken for a constant.
    image = torch.randint(256, (187, 241, 3), dtype=torch.uint8)
    classes = {0: 'classes'}
    found = {0: 'detections'}
    unfinished = file.with_name(f'{file.stem}.{os.getpid()}.onnx')
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with torch.no_grad(), roi_align_of_onnx():
            torch.onnx.export(
                graph,
                (image, embeddings.clone(), is_base),
                unfinished,
                input_names=['image', 'class_embeddings', 'is_base'],
                output_names=['boxes', 'scores', 'labels'],
                dynamic_axes=dict(
                    image={
                        0: 'height',
                        1: 'width'
                    },
                    class_embeddings=classes,
                    is_base=classes,
                    boxes=found,
                    scores=found,
                    labels=found),
                opset_version=17,
                # The exporter that takes operators of our own as symbols,
                # and no look into their Python.
                dynamo=False,
                autograd_inlining=False)
        _note(unfinished, base_names=json.dumps(_base_names(detector)))
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)
        head.fc_cls.class_embeddings = embeddings


def canvas_of(pipeline: Sequence[dict]) -> Optional[Canvas]:
    """What a test pipeline pads images to; None if it does not.

    Args:
        pipeline (Sequence[dict]): Configs of its transforms.

    Raises:
        ValueError: If it pads otherwise than to a size.
    """
    for transform in pipeline:
        if transform['type'].rpartition('.')[2] != 'Pad':
            continue
        if transform.get('size') is None:
            raise ValueError('test pipeline: expected a Pad with a size, got '
                             f'{dict(transform)}')
        value = transform.get('pad_val', 0)
        value = value.get('img', 0) if isinstance(value, dict) else value
        if isinstance(value, (int, float)):
            value = (value, value, value)
        return Canvas(tuple(transform['size']), tuple(value))
    return None


def _on_canvas(pixels: Tensor, size: Tensor,
               canvas: Canvas) -> Tuple[Tensor, Tensor]:
    """An image (1, 3, h, w), BGR, of (height, width) ``size``, padded."""
    colour = pixels.new_tensor(canvas.colour)[:, None, None]
    padded = torch.maximum(size, size.new_tensor(canvas.size[::-1]))
    return _pad(pixels - colour, padded - size) + colour, padded


def _pad(pixels: Tensor, missing: Tensor) -> Tensor:
    """Zeros below and at the right of (1, 3, h, w), so many (down, across)."""
    bottom, right = missing[0].long(), missing[1].long()
    return F.pad(pixels, (0, right, 0, bottom))


def _base_names(detector: TwoStageDetector) -> List[str]:
    """The classes that were trained with boxes."""
    head = detector.roi_head
    if isinstance(detector, FViT) and head.trained_vocabulary is not None:
        return list(head.trained_vocabulary.base_names)
    return list(head.bbox_head.vocabulary.base_names)


def _note(file: Path, **values: str) -> None:
    """Add to the meta data of a graph."""
    import onnx
    graph = onnx.load(file)
    onnx.helper.set_model_props(graph, values)
    onnx.save(graph, file)


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
        raise TypeError('export: expected reg_class_agnostic=True of the '
                        'bbox_head, whose classes are an input')


def _resize(image: Tensor, size: Tensor) -> Tensor:
    """OpenCV's bilinear resize of 8-bit pixels, with its whole numbers.

    A score that is compared to a thousandth sees the difference of one level
    that rounding makes.

    Args:
        image (Tensor): uint8, shape (H, W, 3).
        size (Tensor): Height and width of the result.

    Returns:
        Tensor: int64, shape (height, width, 3).
    """
    shape = torch._shape_as_tensor(image)
    low, high, low_share, high_share = _taps(shape[1], size[1])
    pixels = image.long()
    pixels = pixels[:, low] * low_share[:, None] \
        + pixels[:, high] * high_share[:, None]
    pixels = _shift(pixels, 4)
    low, high, low_share, high_share = _taps(shape[0], size[0])
    low_share, high_share = low_share[:, None, None], high_share[:, None, None]
    return _shift(
        _shift(pixels[low] * low_share, 16) +
        _shift(pixels[high] * high_share, 16) + 2, 2)


def _taps(old: Tensor, new: Tensor) -> Tuple[Tensor, ...]:
    """Two pixels of an axis for each new one, and their shares of 2048."""
    ratio = old.double() / new.double()
    at = ((torch.arange(new.long()) + .5).double() * ratio - .5).float()
    first = at.floor()
    share = at - first
    last = (old - 1).float()
    inside = (first >= 0) & (first < last)
    share = torch.where(inside, share, torch.zeros_like(share))
    first = torch.minimum(first.clamp(min=0), last)
    second = torch.minimum(first + 1, last)
    return (first.long(), second.long(), ((1 - share) * 2048).round().long(),
            (share * 2048).round().long())


def _shift(value: Tensor, bits: int) -> Tensor:
    """Of positive whole numbers."""
    return torch.div(value, 2**bits, rounding_mode='floor')


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
    pooled: List[Tensor] = [
        layer(level, rois) for level, layer in zip(x, extractor.roi_layers)
    ]
    if len(pooled) == 1:
        return pooled[0]
    levels = extractor.map_roi_levels(rois, len(pooled))[:, None, None, None]
    chosen = pooled[0]
    for number, of_level in enumerate(pooled[1:], 1):
        chosen = torch.where(levels == number, of_level, chosen)
    return chosen
