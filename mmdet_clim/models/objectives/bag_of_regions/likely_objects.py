# Licensed under the Apache License, Version 2.0.
"""Which proposals are worth a place in a bag of regions."""
from dataclasses import dataclass

import torch
from mmcv.ops import batched_nms
from torch import Tensor

from mmdet_clim.checks import check_range

from ..base import BranchStage
from ..tile_batch import TileProposals
from .reading import number_in_group


@dataclass
class LikelyObjects:
    """A few likely objects of each tile of mosaics.

    Of the ``max_considered`` best proposals of a tile, clamped to it, those
    that are neither long nor small for the tile and whose score is high, or
    the best of all where none is so; without those that overlap a better
    one; at most ``max_objects`` of them, drawn at random (REFERENCE.md,
    section 3; a plain image is one tile).

    Args:
        max_considered (int): Proposals of a tile that are looked at.
        min_overlap (float): Least share of a proposal's area in its tile.
        max_aspect (float): Most that one side may be of the other.
        min_area (float): Least share of the tile's area, exclusive.
        min_score (float): Least score, exclusive.
        nms_iou (float): Threshold of the suppression.
        max_objects (int, optional): The most that a tile gets. None: all.

    Raises:
        ValueError: If an argument is out of its range.
    """

    max_considered: int = 128
    min_overlap: float = 0.3
    max_aspect: float = 4.0
    min_area: float = 0.01
    min_score: float = 0.85
    nms_iou: float = 0.2
    max_objects: int | None = 10

    def __post_init__(self) -> None:
        check_range(1, max_considered=self.max_considered)
        check_range(1, max_objects=self.max_objects)
        check_range(1, max_aspect=self.max_aspect)
        check_range(0, 1, (1, ), min_overlap=self.min_overlap)
        check_range(0, 1, (1, ), min_area=self.min_area)
        check_range(0, 1, (1, ), min_score=self.min_score)
        check_range(0, 1, (1, ), nms_iou=self.nms_iou)

    def __call__(self, stage: BranchStage) -> tuple[Tensor, Tensor, Tensor]:
        """Choose objects of all images.

        Args:
            stage (BranchStage): Which has proposals.

        Returns:
            tuple[Tensor, Tensor, Tensor]: Boxes (n, 4), absolute xyxy,
            clamped to their tiles; the image (n,), ascending, and the tile
            (n,) of each.
        """
        found = stage.tile_proposals(self.min_overlap, self.max_considered)
        scores = found.proposals.scores
        tiles = stage.context.tiles.boxes
        passes = self._has_shape(found, tiles) & (scores > self.min_score)
        high = found.owns & passes[..., None]
        best = found.owns & (found.owns.cumsum(1) == 1)
        chosen = torch.where(high.any(1, keepdim=True), high, best)
        image, index, tile = chosen.nonzero(as_tuple=True)
        boxes = found.boxes[image, index]
        if len(boxes) == 0:
            return boxes, image, tile
        # Objects of different tiles do not overlap: tiles do not.
        _, kept = batched_nms(boxes, scores[image, index], image,
                              dict(type='nms', iou_threshold=self.nms_iou))
        kept = kept[torch.randperm(len(kept), device=kept.device)]
        kept = kept[image[kept].argsort(stable=True)]
        if self.max_objects is None:
            return boxes[kept], image[kept], tile[kept]
        group = image[kept] * tiles.shape[1] + tile[kept]
        number = number_in_group(group,
                                 torch.arange(len(kept), device=kept.device))
        kept = kept[number < self.max_objects]
        return boxes[kept], image[kept], tile[kept]

    def _has_shape(self, found: TileProposals, tiles: Tensor) -> Tensor:
        """Which boxes are neither long nor small: bool (N, P)."""
        sides = (found.boxes[..., 2:] - found.boxes[..., :2]).clamp(min=0)
        is_short = sides.amax(-1) <= self.max_aspect * sides.amin(-1)
        areas = (tiles[..., 2:] - tiles[..., :2]).prod(-1)
        least = self.min_area * areas.gather(1, found.owner)
        return is_short & (sides.prod(-1) > least)
