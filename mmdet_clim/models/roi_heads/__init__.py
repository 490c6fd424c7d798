# Licensed under the Apache License, Version 2.0.
from .centernet2_roi_head import CenterNet2RoIHead, refine_rois
from .mlp_regressor import MLPRegressor
from .proposal_scores import ProposalScoreRoIHead, select_detections
from .pseudo_word_classifier import PseudoWordClassifier
from .zero_shot_bbox_head import (
    ZeroShotBBoxHead,
    ZeroShotConvFCBBoxHead,
    ZeroShotMixin,
)
from .zero_shot_classifier import ZeroShotClassifier

__all__ = [
    'CenterNet2RoIHead', 'MLPRegressor', 'ProposalScoreRoIHead',
    'PseudoWordClassifier', 'ZeroShotBBoxHead', 'ZeroShotClassifier',
    'ZeroShotConvFCBBoxHead', 'ZeroShotMixin', 'refine_rois',
    'select_detections'
]
