# Licensed under the Apache License, Version 2.0.
from .centernet2_roi_head import CenterNet2RoIHead, refine_boxes, refine_rois
from .fvit_roi_head import FViTRoIHead, ensemble_scores
from .mlp_regressor import MLPRegressor
from .proposal_scores import ProposalScoreRoIHead, select_detections
from .pseudo_word_classifier import (
    PseudoWordClassifier,
    SoftmaxPseudoWordClassifier,
)
from .softmax_zero_shot_classifier import SoftmaxZeroShotClassifier
from .zero_shot_bbox_head import (
    ZeroShotBBoxHead,
    ZeroShotConvFCBBoxHead,
    ZeroShotMixin,
)
from .zero_shot_classifier import ZeroShotClassifier

__all__ = [
    'CenterNet2RoIHead', 'FViTRoIHead', 'MLPRegressor', 'ProposalScoreRoIHead',
    'PseudoWordClassifier', 'SoftmaxPseudoWordClassifier',
    'SoftmaxZeroShotClassifier', 'ZeroShotBBoxHead', 'ZeroShotClassifier',
    'ZeroShotConvFCBBoxHead', 'ZeroShotMixin', 'ensemble_scores',
    'refine_boxes', 'refine_rois', 'select_detections'
]
