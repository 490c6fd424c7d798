# Licensed under the Apache License, Version 2.0.
from .centernet2_roi_head import CenterNet2RoIHead, refine_boxes, refine_rois
from .rescoring import (
    FViTRoIHead,
    ProposalScoreRoIHead,
    ensemble_scores,
    select_detections,
)
from .zero_shot_bbox_head import (
    MLPRegressor,
    ZeroShotBBoxHead,
    ZeroShotConvFCBBoxHead,
    ZeroShotMixin,
)
from .zero_shot_classifier import (
    PseudoWordClassifier,
    SoftmaxPseudoWordClassifier,
    SoftmaxZeroShotClassifier,
    ZeroShotClassifier,
)

__all__ = [
    'CenterNet2RoIHead', 'FViTRoIHead', 'MLPRegressor', 'ProposalScoreRoIHead',
    'PseudoWordClassifier', 'SoftmaxPseudoWordClassifier',
    'SoftmaxZeroShotClassifier', 'ZeroShotBBoxHead', 'ZeroShotClassifier',
    'ZeroShotConvFCBBoxHead', 'ZeroShotMixin', 'ensemble_scores',
    'refine_boxes', 'refine_rois', 'select_detections'
]
