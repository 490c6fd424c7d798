# Licensed under the Apache License, Version 2.0.
from typing import Sequence

from mmdet.models.detectors import TridentFasterRCNN
from torch import Tensor

from .two_stage import TwoStageFamily


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
