# Licensed under the Apache License, Version 2.0.
from typing import List, Optional, Sequence, Tuple

from mmcv.transforms import Pad
from mmdet.models.detectors import TwoStageDetector
from mmdet.structures import SampleList
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet_clim.models.region_readers import (
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
                samples: SampleList) -> List[InstanceData]:
        """See the base class; without masks."""
        if not detector.with_rpn:
            return super().predict(detector, feats, levels, samples)
        return detector.roi_head.predict_bbox(
            levels, [sample.metainfo for sample in samples],
            detector.rpn_head.predict(levels, samples, rescale=False),
            detector.roi_head.test_cfg,
            rescale=False)

    def onnx_graph(self,
                   detector: TwoStageDetector,
                   scale: Tuple[int, int],
                   padding: Optional[Pad] = None) -> nn.Module:
        """See the base class; cascades are not exported."""
        from mmdet_clim.apis.onnx_detector import OnnxDetector
        return OnnxDetector(detector, scale, padding)
