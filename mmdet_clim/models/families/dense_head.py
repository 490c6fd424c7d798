# Licensed under the Apache License, Version 2.0.
from typing import Sequence

from mmdet.models.detectors import SingleStageDetector
from mmdet.structures import SampleList
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ..dense_heads import ZeroShotDenseMixin
from ..region_readers import DenseFeatureReader, ExtractedImages
from .base import DetectorFamily


class AnyDetector(DetectorFamily):
    """Whatever has feature maps."""

    readers = (DenseFeatureReader, )


class DenseHeadFamily(AnyDetector):
    """One head on all positions: RetinaNet, FCOS, ATSS, RTMDet, YOLOX."""

    detector_type = SingleStageDetector

    def fits(self, detector: nn.Module) -> bool:
        """See the base class; MaskFormer has no such head."""
        return super().fits(detector) and detector.with_bbox

    def sources(self, detector: SingleStageDetector) -> tuple[str, ...]:
        """See the base class."""
        head = detector.bbox_head
        if isinstance(head, ZeroShotDenseMixin) and all(
                isinstance(layer.projection, nn.Conv2d)
                for layer in head.class_layers):
            return ('classifier', 'neck')
        return ('neck', )

    def predict(self, detector: SingleStageDetector, feats: ExtractedImages,
                levels: Sequence[Tensor],
                samples: SampleList) -> list[InstanceData]:
        """See the base class."""
        return detector.bbox_head.predict(levels, samples, rescale=False)

    def onnx_graph(self, detector, scale, padding=None) -> nn.Module:
        """See the base class."""
        from mmdet_clim.apis.onnx_dense import OnnxDenseDetector
        return OnnxDenseDetector(detector, scale, padding)
