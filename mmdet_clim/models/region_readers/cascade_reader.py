# Licensed under the Apache License, Version 2.0.
from functools import partial
from typing import List

from mmdet.models.roi_heads import CascadeRoIHead
from torch import Tensor, nn

from mmdet_clim.models.roi_heads import refine_boxes
from mmdet_clim.registry import MODELS

from .base import ReadingStage
from .features import ExtractedImages, aligned_levels, as_weights
from .two_stage_reader import TwoStageReader


@MODELS.register_module()
class CascadeReader(TwoStageReader):
    """Read the regions of a cascade, such as CenterNet2, in every stage.

    Each stage embeds regions with its own box head. Proposals are refined
    without gradient by the stage before, as boxes are in a cascade; the
    objectives choose regions afresh from them (REFERENCE.md, section 2,
    CenterNet2). The weights of the stages are those of the detector's losses.
    """

    roi_head_type = CascadeRoIHead

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
