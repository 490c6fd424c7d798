# Licensed under the Apache License, Version 2.0.
"""Which proposals are worth a place in a bag of regions."""
from typing import Tuple

import torch
import torch.nn.functional as F
from mmcv.ops import batched_nms
from mmengine.structures import InstanceData
from torch import Tensor

from .tile_proposals import assign_to_tiles


class LikelyObjects:
    """A few likely objects of each tile of a mosaic.

    Of the ``max_considered`` best proposals of a tile, clamped to it, those
    that are neither long nor small for the tile and whose score is high, or
    the best of them where no score is; without those that overlap a better
    one; at most ``max_objects`` of them, drawn at random (REFERENCE.md,
    section 3; a plain image is one tile).

    Args:
        max_considered (int): Proposals of a tile that are looked at.
        min_overlap (float): Least share of a proposal's area in its tile.
        max_aspect (float): Most that one side may be of the other.
        min_area (float): Least share of the tile's area, exclusive.
        min_score (float): Least score, exclusive.
        nms_iou (float): Threshold of the suppression.
        max_objects (int): The most that a tile gets.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(self,
                 max_considered: int = 128,
                 min_overlap: float = 0.3,
                 max_aspect: float = 4.0,
                 min_area: float = 0.01,
                 min_score: float = 0.85,
                 nms_iou: float = 0.2,
                 max_objects: int = 10) -> None:
        for name, value in (('max_considered', max_considered),
                            ('max_objects', max_objects), ('max_aspect',
                                                           max_aspect)):
            if value < 1:
                raise ValueError(f'{name}: expected at least 1, got {value}')
        for name, value in (('min_overlap', min_overlap), ('min_area',
                                                           min_area),
                            ('min_score', min_score), ('nms_iou', nms_iou)):
            if not 0 <= value < 1:
                raise ValueError(
                    f'{name}: expected 0 <= share < 1, got {value}')
        self.max_considered = max_considered
        self.min_overlap = min_overlap
        self.max_aspect = max_aspect
        self.min_area = min_area
        self.min_score = min_score
        self.nms_iou = nms_iou
        self.max_objects = max_objects

    def __call__(self, proposals: InstanceData,
                 tiles: Tensor) -> Tuple[Tensor, Tensor]:
        """Choose objects.

        Args:
            proposals (InstanceData): ``bboxes`` (P, 4), absolute xyxy, and
                ``scores`` (P,) in descending order.
            tiles (Tensor): Shape (K, 4), absolute xyxy.

        Returns:
            tuple[Tensor, Tensor]: Boxes (n, 4), absolute xyxy, clamped to
            their tiles, and the tile of each (n,).
        """
        owns, boxes = assign_to_tiles(proposals.bboxes, tiles,
                                      self.min_overlap, self.max_considered)
        # One is owned by at most one tile.
        owns &= self._has_shape(boxes, tiles[owns.float().argmax(1)])[:, None]
        high = owns & (proposals.scores > self.min_score)[:, None]
        best = owns & (owns.cumsum(0) == 1)
        chosen = torch.where(high.any(0), high, best)
        index, owner = chosen.nonzero(as_tuple=True)
        if len(index) == 0:
            return boxes[:0], owner
        _, kept = batched_nms(boxes[index], proposals.scores[index], owner,
                              dict(type='nms', iou_threshold=self.nms_iou))
        kept = kept[torch.randperm(len(kept), device=kept.device)]
        number = F.one_hot(owner[kept], len(tiles)).cumsum(0)
        number = number.gather(1, owner[kept, None])[:, 0]
        kept = kept[number <= self.max_objects]
        return boxes[index[kept]], owner[kept]

    def _has_shape(self, boxes: Tensor, tiles: Tensor) -> Tensor:
        """Which boxes (P, 4) are neither long nor small: bool (P,)."""
        width, height = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).unbind(1)
        area = (tiles[:, 2:] - tiles[:, :2]).prod(1)
        return ((width <= self.max_aspect * height)
                & (height <= self.max_aspect * width)
                & (width * height > self.min_area * area))
