# Licensed under the Apache License, Version 2.0.
from functools import partial
from typing import Iterator, List, Sequence

import torch
from mmdet.models.detectors import TwoStageDetector
from mmdet.models.roi_heads import CascadeRoIHead
from mmdet.structures.bbox import bbox2roi
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet_clim.models.roi_heads import ZeroShotMixin, refine_rois
from mmdet_clim.registry import MODELS

from .base import BaseRegionReader, ReadingStage, aligned_levels
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

    def propose(self, detector: nn.Module, feats: Sequence[Tensor],
                data_samples: list) -> List[InstanceData]:
        """First-stage proposals, as many as training draws from."""
        return rpn_proposals(detector, feats, data_samples)

    def read(self,
             detector: nn.Module,
             feats: Sequence[Tensor],
             rois: Tensor,
             stage: int = -1) -> Tensor:
        """RoIs (R, 5) to embeddings (R, D) of one stage; see the base class.

        Args:
            detector (nn.Module): The detector to read.
            feats (Sequence[Tensor]): Feature maps.
            rois (Tensor): Shape (R, 5).
            stage (int): The stage; the last one if not given.
        """
        roi_head = detector.roi_head
        extractor = roi_head.bbox_roi_extractor[stage]
        levels = aligned_levels(feats[:extractor.num_inputs])
        return roi_head.bbox_head[stage].embed(extractor(levels, rois))

    @torch.no_grad()
    def refine(self, detector: nn.Module, feats: Sequence[Tensor],
               proposals: List[InstanceData], data_samples: list,
               stage: int) -> List[InstanceData]:
        """Proposals as a stage hands them on, in their order and scores.

        Args:
            detector (nn.Module): The detector to read.
            feats (Sequence[Tensor]): Feature maps.
            proposals (list[InstanceData]): ``bboxes`` (n, 4) and ``scores``
                (n,) of each image.
            data_samples (list[DetDataSample]): Of each image.
            stage (int): The stage that regresses the boxes.
        """
        rois = bbox2roi([of_image.bboxes for of_image in proposals])
        if len(rois) == 0:
            return proposals
        refined, _ = refine_rois(detector.roi_head, stage,
                                 aligned_levels(feats), rois,
                                 [sample.metainfo for sample in data_samples])
        counts = [len(of_image) for of_image in proposals]
        return [
            InstanceData(bboxes=boxes, scores=of_image.scores)
            for boxes, of_image in zip(refined[:, 1:].split(counts), proposals)
        ]

    def stages(self, detector: nn.Module, feats: Sequence[Tensor],
               proposals: List[InstanceData],
               data_samples: list) -> Iterator[ReadingStage]:
        """Every stage of the cascade; see the base class."""
        weights = detector.roi_head.stage_loss_weights
        for stage, weight in enumerate(weights):
            if stage > 0:
                proposals = self.refine(detector, feats, proposals,
                                        data_samples, stage - 1)
            yield ReadingStage(
                stage, len(weights), weight, proposals,
                partial(self.read, detector, feats, stage=stage))
