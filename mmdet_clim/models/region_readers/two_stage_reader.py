# Licensed under the Apache License, Version 2.0.
from functools import partial
from typing import Callable

import torch
from mmdet.models.dense_heads import CascadeRPNHead
from mmdet.models.detectors import TwoStageDetector
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet_clim.registry import MODELS

from ..dense_heads import ZeroShotDenseMixin
from ..dense_heads.zero_shot_head import compared
from ..roi_heads import PseudoWordClassifier, ZeroShotMixin, refine_boxes
from .base import (
    BaseRegionReader,
    ExtractedImages,
    ReadingStage,
    aligned_levels,
    as_weights,
)


@MODELS.register_module()
class TwoStageReader(BaseRegionReader):
    """Read the regions of a two-stage detector with one box head.

    C4 with a shared head and FPN alike: what the RoI extractor, the shared
    head where there is one, and the zero-shot box head's ``embed`` make of a
    box. Of another box head that :func:`~mmdet_clim.models.dense_heads.
    ZeroShotHead` has built, such as those of SABL and Double-Head R-CNN, what
    it compares with the class names.
    """

    roi_head_type = StandardRoIHead
    #: What a box head may be.
    head_types: tuple[type, ...] = (ZeroShotMixin, ZeroShotDenseMixin)

    def check(self, detector: nn.Module) -> None:
        """Raise a TypeError that says what this detector lacks."""
        name = type(self).__name__
        if not isinstance(detector, TwoStageDetector):
            raise TypeError(f'{name} reads an mmdet.TwoStageDetector, got '
                            f'{type(detector).__name__}')
        if not (detector.with_rpn
                and isinstance(detector.roi_head, self.roi_head_type)):
            raise TypeError(f'{name} needs an rpn_head and an mmdet.'
                            f'{self.roi_head_type.__name__}')
        heads = detector.roi_head.bbox_head
        stages = heads if isinstance(heads, nn.ModuleList) else [heads]
        for stage, head in enumerate(stages):
            if not isinstance(head, self.head_types):
                raise TypeError(f'{name} needs box heads that embed regions, '
                                'mmdet_clim.ZeroShotBBoxHead or '
                                'mmdet_clim.ZeroShotConvFCBBoxHead, or one of '
                                'mmdet_clim.ZeroShotHead alone, got '
                                f'{type(head).__name__} in stage {stage}')
            if isinstance(head, ZeroShotDenseMixin) and \
                    len(head.class_layers) != 1:
                raise TypeError(f'{name} needs a box head that classifies '
                                'once, got one of '
                                f'{len(head.class_layers)} layers that '
                                f'classify, {type(head).__name__}')

    @torch.no_grad()
    def propose(self, detector: nn.Module,
                feats: ExtractedImages) -> list[InstanceData]:
        """RPN proposals of each image, as many as training draws from.

        Of a Cascade RPN, as many as it predicts. See the base class.
        """
        rpn_head = detector.rpn_head
        if isinstance(rpn_head, CascadeRPNHead):
            # Its stages move the anchors by turns: it has no forward of its
            # own.
            with torch.autocast(feats.inputs.device.type, enabled=False):
                return rpn_head.predict(
                    [level.float() for level in feats.levels], feats.samples())
        # mmcv's NMS takes no bfloat16, which autocast may give.
        outputs = [[level.float() for level in maps]
                   for maps in rpn_head(feats.levels)]
        return rpn_head.predict_by_feat(
            *outputs,
            batch_img_metas=feats.metas,
            cfg=detector.train_cfg.get('rpn_proposal', detector.test_cfg.rpn),
            rescale=False)

    def stages(self, detector: nn.Module,
               feats: ExtractedImages) -> list[ReadingStage]:
        """One stage; see the base class."""
        roi_head = detector.roi_head
        if isinstance(roi_head.bbox_head, ZeroShotDenseMixin):
            levels = [
                as_weights(level, roi_head)
                for level in aligned_levels(feats.levels)
            ]
            return [ReadingStage(partial(_read_compared, roi_head, levels))]
        extractor = roi_head.bbox_roi_extractor
        levels = aligned_levels(feats.levels[:extractor.num_inputs])

        def read(rois: Tensor) -> Tensor:
            x = as_weights(extractor(levels, rois), roi_head)
            if roi_head.with_shared_head:
                x = roi_head.shared_head(x)
            return roi_head.bbox_head.embed(x)

        return [ReadingStage(read, interpret=_interpreter(roi_head.bbox_head))]


@MODELS.register_module()
class CascadeReader(TwoStageReader):
    """Read the regions of a cascade, such as CenterNet2, in every stage.

    Each stage embeds regions with its own box head. Proposals are refined
    without gradient by the stage before, as boxes are in a cascade; the
    objectives choose regions afresh from them (REFERENCE.md, section 2,
    CenterNet2). The weights of the stages are those of the detector's losses.
    """

    roi_head_type = CascadeRoIHead
    head_types = (ZeroShotMixin, )

    def stages(self, detector: nn.Module,
               feats: ExtractedImages) -> list[ReadingStage]:
        """Every stage of the cascade; see the base class."""
        roi_head = detector.roi_head
        levels = aligned_levels(feats.levels)
        return [
            ReadingStage(
                partial(_read, roi_head, stage, levels), weight,
                partial(
                    refine_boxes, roi_head, stage, levels, metas=feats.metas),
                _interpreter(roi_head.bbox_head[stage]))
            for stage, weight in enumerate(roi_head.stage_loss_weights)
        ]


def _read_compared(roi_head: StandardRoIHead, levels: list[Tensor],
                   rois: Tensor) -> Tensor:
    """RoIs (R, 5) to what the box head compares with class names (R, D)."""
    # Some of these heads take no empty tensor.
    some = rois if len(rois) else rois.new_zeros(1, 5)
    with compared(roi_head.bbox_head) as seen:
        # Double-Head R-CNN reads each RoI in two ways.
        roi_head._bbox_forward(levels, some)
    (_, embeddings), = seen
    return embeddings[:len(rois)]


def _interpreter(head: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """What makes a head's embeddings vectors of texts, where they are words.

    Args:
        head (ZeroShotMixin): A box head.
    """
    classifier = head.fc_cls
    return classifier.read if isinstance(classifier,
                                         PseudoWordClassifier) else None


def _read(roi_head: CascadeRoIHead, stage: int, levels: list[Tensor],
          rois: Tensor) -> Tensor:
    """RoIs (R, 5) to embeddings (R, D) of one stage."""
    extractor = roi_head.bbox_roi_extractor[stage]
    head = roi_head.bbox_head[stage]
    regions = extractor(levels[:extractor.num_inputs], rois)
    return head.embed(as_weights(regions, head))
