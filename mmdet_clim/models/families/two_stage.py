# Licensed under the Apache License, Version 2.0.
from typing import Sequence

from mmdet.models.detectors import TridentFasterRCNN, TwoStageDetector
from mmdet.structures import SampleList
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ..region_readers import (
    CascadeReader,
    DenseFeatureReader,
    ExtractedImages,
    TwoStageReader,
)
from .base import DetectorFamily


class TwoStageFamily(DetectorFamily):
    """Proposals and box heads: Faster R-CNN, CenterNet2, F-ViT and others.

    Without a box head that embeds regions, they are read from the neck.
    """

    detector_type = TwoStageDetector
    readers = (TwoStageReader, CascadeReader, DenseFeatureReader)

    def predict(self, detector: TwoStageDetector, feats: ExtractedImages,
                levels: Sequence[Tensor],
                samples: SampleList) -> list[InstanceData]:
        """See the base class; without masks."""
        if not detector.with_rpn:
            return super().predict(detector, feats, levels, samples)
        return detector.roi_head.predict_bbox(
            levels, [sample.metainfo for sample in samples],
            detector.rpn_head.predict(levels, samples, rescale=False),
            detector.roi_head.test_cfg,
            rescale=False)

    def onnx_graph(self, detector, scale, padding=None) -> nn.Module:
        """See the base class; cascades are not exported."""
        from mmdet_clim.apis.onnx_detector import OnnxDetector
        return OnnxDetector(detector, scale, padding)


class TridentFamily(TwoStageFamily):
    """TridentNet, whose backbone has several branches."""

    detector_type = TridentFasterRCNN

    def feature_maps(self, detector: TridentFasterRCNN,
                     inputs: Tensor) -> Sequence[Tensor]:
        """Of the branch that predicts, or of the first where all do.

        In training it gives the maps of all its branches one after another.
        """
        levels = detector.extract_feat(inputs)
        branches = len(levels[0]) // len(inputs)
        branch = max(detector.test_branch_idx, 0) % branches
        return [level.chunk(branches)[branch] for level in levels]
