# Licensed under the Apache License, Version 2.0.
"""Regions out of feature maps."""
import math
from functools import partial
from typing import Any, Sequence, cast

import torch
from mmcv.ops import nms
from mmdet.models.detectors import GroundingDINO
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_overlaps
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet_clim.checks import check_choice, check_range
from mmdet_clim.registry import MODELS

from ..families import family_of
from ..grounding_prompts import SEPARATOR
from ..host import upload
from ..modes import evaluating
from .base import (
    BaseRegionReader,
    ExtractedImages,
    ReadingStage,
    aligned_levels,
    as_weights,
)
from .other_maps import class_embedding_maps, encoder_maps, idle_convolutions

# Height and width in pixels of the image by which a detector's feature maps
# are measured: one that every backbone of mmdet takes, and as wide as whole
# patches of 14 pixels and strides up to 128 both are.
PROBE_SIZE = (512, 896)
# A map that is wider by so little has the stride of a power of two.
STRIDE_TOLERANCE = 0.06
# An RoI of this many cells of a map's stride goes to that map (mmdet's rule,
# which has 56 pixels for stride 4).
CELLS_PER_ROI = 14
MAX_LEVELS = 4


@MODELS.register_module()
class DenseFeatureReader(BaseRegionReader):
    """Read regions from the feature maps of any detector.

    A region's embedding is the mean of a map over its box, by RoIAlign on
    the level that fits its size. Which maps:

    - ``'classifier'``: the embeddings of each position that a zero-shot head
      (:func:`~mmdet_clim.models.dense_heads.ZeroShotHead`) of convolutions
      compares with the class names. Texts then train the very classifier,
      beside neck and backbone.
    - ``'encoder'``: what the encoder of a DETR-like detector gives its
      decoder, and a linear projection of the reader's own.
    - ``'neck'``: what the neck gives the head, and such a projection.

    Or no map: with ``'query'``, of a DETR-like detector with a zero-shot head,
    a region's embedding is what the decoder's query whose box fits it best
    compares with the class names, so that texts train decoder and classifier.

    Args:
        source (str, optional): One of these; by default what the detector
            compares with class names, else the encoder's map, else the neck's.
        max_proposals (int): Proposals per image, best first.
        nms_iou (float): Of two proposals that overlap more, whatever their
            classes, the better one stays.

    Raises:
        ValueError: If there is no such source, or a number is out of its
            range.
    """

    #: Where regions may be read, and what a detector needs for it.
    SOURCES = dict(
        classifier='a bbox_head of type mmdet_clim.ZeroShotHead that '
        'classifies by convolutions',
        encoder='a DETR-like detector',
        neck='feature maps',
        query='a DETR-like detector with a bbox_head of type '
        'mmdet_clim.ZeroShotHead')

    def __init__(self,
                 source: str | None = None,
                 max_proposals: int = 200,
                 nms_iou: float = 0.7,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        check_choice((None, *self.SOURCES), source=source)
        check_range(1, max_proposals=max_proposals)
        check_range(0, 1, nms_iou=nms_iou)
        self.source = source
        self.max_proposals = max_proposals
        self.nms_iou = nms_iou
        self.projection: nn.Linear | None = None
        self.extractor: SingleRoIExtractor | None = None
        self.level_indices: list[int] = []
        self.idle: list[str] = []

    def check(self, detector: nn.Module) -> None:
        """Raise a TypeError that says what this detector lacks."""
        sources = family_of(detector).sources(detector)
        if self.source not in (None, *sources):
            raise TypeError(
                f'{type(self).__name__}(source={self.source!r}) needs '
                f'{self.SOURCES[str(self.source)]}; of '
                f'{type(detector).__name__}, expected one of {sources}')

    def prepare(self, detector: nn.Module, dim: int) -> None:
        """Measure the detector's maps and make what reads them.

        Args:
            detector (nn.Module): Gets one small image, in evaluation mode and
                on the device where its parameters lie.
            dim (int): Width of a text embedding.

        Raises:
            TypeError: If the detector gives no feature maps.
        """
        if self.source is None:
            self.source, *_ = family_of(detector).sources(detector)
        if self.source == 'query':
            return
        image = next(detector.parameters()).new_zeros(1, 3, *PROBE_SIZE)
        with torch.no_grad(), evaluating(detector):
            feats = self.extract_feat(detector, image)
            if self.source == 'classifier':
                self.idle = idle_convolutions(detector.bbox_head, feats.levels)
            maps = self._all_maps(detector, feats)
        if not maps or any(m.dim() != 4 for m in maps):
            raise TypeError(
                f'DenseFeatureReader: {type(detector).__name__} gives no '
                'feature maps (N, C, H, W)')
        # The last of each stride (a stacked hourglass gives several), of as
        # many channels as the finest (SSD's maps differ).
        finest = _stride(max(m.shape[-1] for m in maps))
        by_stride: dict[float, int] = {}
        for index, m in enumerate(maps):
            octave = round(math.log2(PROBE_SIZE[1] / m.shape[-1] / finest))
            by_stride[finest * 2**octave] = index
        width = maps[by_stride[min(by_stride)]].shape[1]
        strides = [
            stride for stride in sorted(by_stride)
            if maps[by_stride[stride]].shape[1] == width
        ][:MAX_LEVELS]
        self.level_indices = [by_stride[stride] for stride in strides]
        self.extractor = SingleRoIExtractor(
            roi_layer=dict(type='RoIAlign', output_size=1, sampling_ratio=0),
            out_channels=width,
            featmap_strides=strides,
            finest_scale=CELLS_PER_ROI * strides[0])
        if self.source != 'classifier':
            self.make_projection(detector, width, dim)

    def make_projection(self, detector: nn.Module, width: int,
                        dim: int) -> None:
        """Make the projection (C) to (D), where the detector lies."""
        self.projection = nn.Linear(
            width, dim, device=next(detector.parameters()).device)

    @torch.no_grad()
    def propose(self, detector: nn.Module,
                feats: ExtractedImages) -> list[InstanceData]:
        """The detector's own predictions, whatever their classes."""
        with evaluating(detector):
            found = self.predict(detector, feats)
        return [self._best(of_image) for of_image in found]

    def predict(self, detector: nn.Module,
                feats: ExtractedImages) -> list[InstanceData]:
        """Boxes in pixels of the input, from the maps there are already."""
        samples = feats.samples()
        for sample in samples:
            if 'border' not in sample:
                # CenterNet takes off (top, bottom, left, right) of what its
                # own pipeline pads around an image: here, nothing.
                height, width = feats.size
                sample.set_metainfo(dict(border=(0, height, 0, width)))
        # mmcv's NMS takes no bfloat16, which autocast may give.
        levels = tuple(as_weights(level, detector) for level in feats.levels)
        return family_of(detector).predict(detector, feats, levels, samples)

    def _best(self, predictions: InstanceData) -> InstanceData:
        """The best boxes of one image, without classes."""
        boxes = predictions.bboxes.float()
        scores = predictions.scores.float()
        if len(boxes):
            _, kept = nms(boxes.contiguous(), scores.contiguous(),
                          self.nms_iou)
            kept = kept[:self.max_proposals]
            boxes, scores = boxes[kept], scores[kept]
        return InstanceData(bboxes=boxes, scores=scores)

    def stages(self, detector: nn.Module,
               feats: ExtractedImages) -> list[ReadingStage]:
        """One stage; see the base class."""
        if self.source == 'query':
            queries = self.queries(detector, feats)
            return [ReadingStage(partial(self.embed_queries, *queries))]
        maps = self._all_maps(detector, feats)
        maps = aligned_levels([maps[index] for index in self.level_indices])
        return [ReadingStage(partial(self.embed, maps))]

    def _all_maps(self, detector: nn.Module,
                  feats: ExtractedImages) -> Sequence[Tensor]:
        """The maps that regions may be read from, finest first."""
        if self.source == 'classifier':
            return class_embedding_maps(detector.bbox_head, feats.levels,
                                        self.idle)
        if self.source == 'encoder':
            return encoder_maps(detector, feats)
        return feats.levels

    def embed(self, maps: list[Tensor], rois: Tensor) -> Tensor:
        """Regions of maps to embeddings.

        Args:
            maps (list[Tensor]): One per level of the extractor.
            rois (Tensor): Shape (R, 5): image index, then absolute xyxy
                pixels.

        Returns:
            Tensor: Shape (R, D).
        """
        extractor = cast(SingleRoIExtractor, self.extractor)
        return self._project(extractor(maps, rois).flatten(1))

    def _project(self, vectors: Tensor) -> Tensor:
        """What was read (R, C) to embeddings (R, D)."""
        if self.projection is None:
            return vectors
        return self.projection(as_weights(vectors, self.projection))

    def queries(self, detector: nn.Module,
                feats: ExtractedImages) -> tuple[Tensor, Tensor]:
        """What the decoder has of its queries, with gradient, and where.

        Returns:
            tuple[Tensor]: Vectors (N, Q, C) and boxes (N, Q, 4), xyxy pixels
            of the network input, without gradient.
        """
        # In training there would be denoising queries, which need boxes.
        with evaluating(detector):
            vectors, boxes = family_of(detector).queries(detector, feats)
        return vectors, in_pixels(boxes, feats)

    def embed_queries(self, queries: Tensor, boxes: Tensor,
                      rois: Tensor) -> Tensor:
        """Per region, the query whose box overlaps it most.

        Args:
            queries (Tensor): Shape (N, Q, C).
            boxes (Tensor): Shape (N, Q, 4), absolute xyxy pixels.
            rois (Tensor): Shape (R, 5): image index, then absolute xyxy.

        Returns:
            Tensor: Shape (R, D).
        """
        image = rois[:, 0].long()
        overlaps = bbox_overlaps(rois[:, None, 1:], boxes[image])[:, 0]
        return self._project(queries[image, overlaps.argmax(1)])


def in_pixels(boxes: Tensor, feats: ExtractedImages) -> Tensor:
    """Relative boxes (N, Q, 4), cxcywh, to xyxy pixels of the input."""
    # With mixed precision, the areas of large boxes would be infinite. They
    # are relative to each image without its padding.
    sizes = upload([meta['img_shape'][1::-1] * 2 for meta in feats.metas],
                   boxes.float())
    return bbox_cxcywh_to_xyxy(boxes.detach().float()) * sizes[:, None]


def _stride(width: int) -> float:
    """Pixels per cell of the probe's map of this width.

    A power of two of most backbones; 3.5, 7, 14 and so on of patches of 14.
    """
    stride = PROBE_SIZE[1] / width
    nearest = 2**round(math.log2(stride))
    return nearest if abs(stride / nearest - 1) < STRIDE_TOLERANCE else stride


@MODELS.register_module()
class GroundingReader(DenseFeatureReader):
    """Read and train GLIP, Grounding DINO and MM-Grounding-DINO.

    It serves two routes, which can be compared and combined:

    - ``GroundingObjective``: a mosaic becomes grounding data, on which the
      detector's own losses work;
    - the region objectives: a contrastive loss between embeddings of regions
      and of texts. Where an embedding comes from is ``source``:

      - ``'query'``: the decoder's query whose box fits the region best;
      - ``'encoder'``: the mean of the encoder's map over the region;
      - ``'neck'``: the mean of the neck's map, all that GLIP has,

      each with a linear projection of the reader's own.

    These detectors look at an image for the sake of a text. What the regions
    are read with is ``prompt``, the same for every image: a region's own
    text in it would give the answer away.

    Args:
        source (str, optional): One of these; ``'encoder'`` by default, with
            GLIP ``'neck'``.
        prompt (str): What regions and proposals are looked for with.
        **kwargs: Of :class:`DenseFeatureReader`.
    """

    SOURCES = dict(
        query='the queries of a Grounding DINO',
        encoder='the encoder of a Grounding DINO',
        neck='feature maps')

    def __init__(self,
                 source: str | None = None,
                 prompt: str = 'object',
                 **kwargs) -> None:
        super().__init__(source=source, **kwargs)
        self.prompt = prompt

    def check(self, detector: nn.Module) -> None:
        """Raise a TypeError that says what this detector lacks."""
        if not family_of(detector).reads_texts:
            raise TypeError('GroundingReader reads an mmdet.GLIP or an '
                            'mmdet.GroundingDINO, got '
                            f'{type(detector).__name__}')
        super().check(detector)

    def prepare(self, detector: nn.Module, dim: int) -> None:
        """Make what reads the detector; see the base class."""
        self.family: Any = family_of(detector)
        super().prepare(detector, dim)
        if self.source == 'query':
            self.make_projection(detector, detector.embed_dims, dim)

    def queries(self, detector: GroundingDINO,
                feats: ExtractedImages) -> tuple[Tensor, Tensor]:
        """The decoder's queries (N, Q, C); see the base class."""
        texts = self._encode_prompt(detector, feats)
        # In training there would be denoising queries, which need boxes.
        with evaluating(detector):
            outputs = detector.forward_transformer(feats.levels, texts,
                                                   feats.samples())
            feats.seen['decoder'] = outputs
            _, boxes = detector.bbox_head(**outputs)
        return outputs['hidden_states'][-1], in_pixels(boxes[-1], feats)

    def _encode_prompt(self, detector: nn.Module,
                       feats: ExtractedImages) -> dict[str, Tensor]:
        """The reader's prompt as the detector takes it, for every image."""
        feats.seen['prompt'] = self.family.encode(
            detector, [self.prompt + SEPARATOR] * len(feats.inputs))
        return feats.seen['prompt']

    def _all_maps(self, detector: nn.Module,
                  feats: ExtractedImages) -> Sequence[Tensor]:
        if self.source == 'neck':
            return feats.levels
        return encoder_maps(
            detector, feats, text_dict=self._encode_prompt(detector, feats))

    def predict(self, detector: nn.Module,
                feats: ExtractedImages) -> list[InstanceData]:
        """Boxes that fit the reader's prompt, whatever else there is."""
        return self.family.predict_prompt(detector, feats, self.prompt)
