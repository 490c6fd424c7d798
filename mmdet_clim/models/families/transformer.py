# Licensed under the Apache License, Version 2.0.
from typing import List, Sequence, Tuple

from mmdet.models.detectors.base_detr import DetectionTransformer
from mmdet.structures import SampleList
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_clim.models.region_readers import ExtractedImages
from mmdet_clim.models.region_readers.encoder_maps import encoded_before

from .any_detector import AnyDetector


class TransformerFamily(AnyDetector):
    """DETR and what came after it: DINO, DAB-DETR, DDQ and others."""

    detector_type = DetectionTransformer

    def sources(self, detector: DetectionTransformer) -> Tuple[str, ...]:
        """See the base class."""
        return ('encoder', 'neck')

    def predict(self, detector: DetectionTransformer, feats: ExtractedImages,
                levels: Sequence[Tensor],
                samples: SampleList) -> List[InstanceData]:
        """See the base class."""
        with encoded_before(detector, feats):
            outputs = detector.forward_transformer(levels, samples)
        return detector.bbox_head.predict(
            **outputs, batch_data_samples=samples, rescale=False)
