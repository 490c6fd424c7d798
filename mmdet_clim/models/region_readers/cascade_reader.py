# Licensed under the Apache License, Version 2.0.
from functools import partial
from typing import List

from mmdet.models.detectors import TwoStageDetector
from mmdet.models.roi_heads import CascadeRoIHead
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet_clim.models.roi_heads import ZeroShotMixin, refine_boxes
from mmdet_clim.registry import MODELS

from .base import BaseRegionReader, ReadingStage
from .features import ExtractedImages, aligned_levels, as_weights
from .rpn_proposals import rpn_proposals


@MODELS.register_module()
class CascadeReader(BaseRegionReader):
    """Read the regions of a cascade, such as CenterNet2, in every stage.

    Each stage embeds regions with its own box head. Proposals are refined
    without gradient by the stage before, as boxes are in a cascade; the
    objectives choose regions afresh from them (REFERENCE.md, section 2,
    CenterNet2). The weights of the stages are those of the detector's losses.
    """

    def check(self, detector: nn.Module) -> None:
        """Raise a TypeError that says what this detector lacks."""
        if not isinstance(detector, TwoStageDetector):
            raise TypeError('CascadeReader reads an mmdet.TwoStageDetector, '
                            f'got {type(detector).__name__}')
        if not (detector.with_rpn
                and isinstance(detector.roi_head, CascadeRoIHead)):
            raise TypeError('CascadeReader needs an rpn_head and an '
                            'mmdet.CascadeRoIHead')
        for stage, head in enumerate(detector.roi_head.bbox_head):
            if not isinstance(head, ZeroShotMixin):
                raise TypeError(
                    f'CascadeReader needs box heads that embed regions, '
                    'mmdet_clim.ZeroShotConvFCBBoxHead, got '
                    f'{type(head).__name__} in stage {stage}')

    def propose(self, detector: nn.Module,
                feats: ExtractedImages) -> List[InstanceData]:
        """First-stage proposals, as many as training draws from."""
        return rpn_proposals(detector, feats)

    def stages(self, detector: nn.Module,
               feats: ExtractedImages) -> List[ReadingStage]:
        """Every stage of the cascade; see the base class."""
        roi_head = detector.roi_head
        levels = aligned_levels(feats.levels)
        return [
            ReadingStage(
                partial(_read, roi_head, stage, levels), weight,
                partial(
                    refine_boxes, roi_head, stage, levels, metas=feats.metas))
            for stage, weight in enumerate(roi_head.stage_loss_weights)
        ]


def _read(roi_head: CascadeRoIHead, stage: int, levels: List[Tensor],
          rois: Tensor) -> Tensor:
    """RoIs (R, 5) to embeddings (R, D) of one stage."""
    extractor = roi_head.bbox_roi_extractor[stage]
    head = roi_head.bbox_head[stage]
    regions = extractor(levels[:extractor.num_inputs], rois)
    return head.embed(as_weights(regions, head))
