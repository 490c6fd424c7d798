# Licensed under the Apache License, Version 2.0.
from typing import Sequence

from mmdet.models.detectors import (
    SingleStageDetector,
    single_stage_instance_seg,
)
from mmdet.structures import SampleList
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ..dense_heads import ZeroShotDenseMixin
from ..region_readers import DenseFeatureReader, ExtractedImages
from .base import DetectorFamily


class AnyDetector(DetectorFamily):
    """Whatever has feature maps."""

    readers = (DenseFeatureReader, )


class BoxHeadFamily(AnyDetector):
    """What detectors of one box head on all positions have in common."""

    def fits(self, detector: nn.Module) -> bool:
        """See the base class; MaskFormer and SOLO have no such head."""
        return super().fits(detector) and detector.with_bbox

    def sources(self, detector: nn.Module) -> tuple[str, ...]:
        """See the base class."""
        head = detector.bbox_head
        if isinstance(head, ZeroShotDenseMixin) and all(
                isinstance(layer.projection, nn.Conv2d)
                for layer in head.class_layers):
            return ('classifier', 'neck')
        return ('neck', )

    def predict(self, detector: nn.Module, feats: ExtractedImages,
                levels: Sequence[Tensor],
                samples: SampleList) -> list[InstanceData]:
        """See the base class; without masks."""
        return detector.bbox_head.predict(levels, samples, rescale=False)


class DenseMaskFamily(BoxHeadFamily):
    """Such a head, and masks beside it: CondInst, YOLACT."""

    detector_type = single_stage_instance_seg.SingleStageInstanceSegmentor


class DenseHeadFamily(BoxHeadFamily):
    """Such a head alone: RetinaNet, FCOS, ATSS, RTMDet, YOLOX."""

    detector_type = SingleStageDetector

    def onnx_graph(self, detector, scale, padding=None) -> nn.Module:
        """See the base class."""
        from mmdet_clim.apis.onnx_dense import OnnxDenseDetector
        return OnnxDenseDetector(detector, scale, padding)
