# Licensed under the Apache License, Version 2.0.
"""The feature maps of a detector, one of each image."""
from functools import singledispatch
from typing import Tuple

from mmdet.models.detectors import TridentFasterRCNN
from torch import Tensor, nn


@singledispatch
def feature_maps(detector: nn.Module, inputs: Tensor) -> Tuple[Tensor, ...]:
    """What a detector's neck gives, or its backbone where it has no neck.

    A family whose ``extract_feat`` gives something else than one map per
    level and image registers how to get those; all region readers follow.

    Args:
        detector (nn.Module): An mmdet detector.
        inputs (Tensor): Images (N, 3, H, W).

    Returns:
        tuple[Tensor]: Maps (N, C, h, w), finest first.
    """
    return detector.extract_feat(inputs)


@feature_maps.register
def _of_one_branch(detector: TridentFasterRCNN,
                   inputs: Tensor) -> Tuple[Tensor, ...]:
    """Of TridentNet, the branch that predicts, or the first where all do.

    In training it gives the maps of all its branches one after another.
    """
    levels = detector.extract_feat(inputs)
    branches = len(levels[0]) // len(inputs)
    branch = max(detector.test_branch_idx, 0) % branches
    return tuple(level.chunk(branches)[branch] for level in levels)
