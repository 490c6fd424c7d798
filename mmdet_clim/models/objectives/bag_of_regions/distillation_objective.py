# Licensed under the Apache License, Version 2.0.
from typing import Dict, Optional

import torch
import torch.nn.functional as F
from mmengine.dist import get_rank
from torch import Tensor

from mmdet_clim.models.crop_encoder import CropEncoder
from mmdet_clim.models.losses.gather import exchange_counts
from mmdet_clim.registry import MODELS

from ..base import BaseRegionObjective
from ..composition import union_boxes
from ..context import BranchContext, BranchStage
from ..tile_batch import TileBatch
from .contrast import BagContrast
from .likely_objects import LikelyObjects
from .reading import BagReader, SampledBags


@MODELS.register_module()
class BagDistillationObjective(BaseRegionObjective):
    """BARON's distillation: bags meet the crops that they are cut from.

    A bag is a likely object and some of its neighbours, boxes of the same
    size beside it, clamped to the object's tile. Its embedding is contrasted
    with those that CLIP's image encoder gives to the crop around the bag; the
    crops of the other bags, of all ranks and of a queue, are its negatives
    (REFERENCE.md, section 3, says no more than that there are such bags; their
    geometry and the loss are this project's).

    Captions are not looked at.

    Args:
        loss (dict): Config of the loss, normally
            ``CLIMRegionLoss(kind='infonce')``.
        image_encoder (dict): Arguments of :class:`CropEncoder`.
        bags (dict, optional): Arguments of :class:`BagReader`.
        queue (dict, optional): Config of the queues of past bags and crops.
        proposals (dict, optional): Arguments of :class:`LikelyObjects`;
            ``max_objects`` is the number of bags of a tile.
        neighbour_prob (float): Chance of each of the eight neighbours.
        spacing (float): From a box to its neighbours, in widths and heights.
        min_inside (float): Least share of a neighbour inside of the tile.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(self,
                 loss: dict,
                 image_encoder: dict,
                 bags: Optional[dict] = None,
                 queue: Optional[dict] = None,
                 proposals: Optional[dict] = None,
                 neighbour_prob: float = 0.5,
                 spacing: float = 1.0,
                 min_inside: float = 2 / 3,
                 init_cfg: Optional[dict] = None) -> None:
        super().__init__(init_cfg=init_cfg)
        if not 0 <= neighbour_prob <= 1:
            raise ValueError('neighbour_prob: expected 0 <= p <= 1, got '
                             f'{neighbour_prob}')
        if spacing <= 0:
            raise ValueError(
                f'spacing: expected a positive number, got {spacing}')
        if not 0 < min_inside <= 1:
            raise ValueError('min_inside: expected a share in (0, 1], got '
                             f'{min_inside}')
        self.reader = BagReader(**(bags or {}))
        self.contrast = BagContrast(loss, queue)
        self.likely_objects = LikelyObjects(**(proposals or {}))
        self.image_encoder = CropEncoder(**image_encoder)
        self.neighbour_prob = neighbour_prob
        self.spacing = spacing
        self.min_inside = min_inside
        # A bag and its crop have a number that no others have, also not
        # those in the queues of a resumed run.
        self.register_buffer('num_bags', torch.zeros((), dtype=torch.int64))

    def sample(self, tiles: TileBatch, stage: BranchStage) -> SampledBags:
        """Likely objects, each with neighbours; a bag per object."""
        objects, image, tile = self.likely_objects(stage)
        boxes, kept = self.neighbours(objects, tiles.boxes[image, tile])
        bag, _ = kept.nonzero(as_tuple=True)
        bboxes = boxes[kept]
        bags = torch.arange(len(objects), device=bag.device)[:, None] == bag
        around = union_boxes(bboxes, bags) if len(bags) else objects
        middle = torch.arange(9, device=bag.device) == 4
        host = torch.stack([image[bag], tile[bag]]).cpu()
        return SampledBags(
            torch.cat([image[bag, None].to(bboxes), bboxes], 1),
            host[0],
            F.one_hot(host[1], tiles.boxes.shape[1]).bool(),
            bags=bags,
            bag_rois=torch.cat([image[:, None].to(around), around], 1),
            is_core=middle.expand_as(kept)[kept],
            is_composed=torch.zeros(len(bags), dtype=torch.bool))

    def neighbours(self, objects: Tensor, tiles: Tensor):
        """A grid of 3x3 boxes around each object, and which of them to take.

        Args:
            objects (Tensor): Shape (A, 4), absolute xyxy.
            tiles (Tensor): Shape (A, 4): the tile of each.

        Returns:
            tuple[Tensor, Tensor]: Boxes (A, 9, 4), clamped to the tiles, in
            row-major order, and bool (A, 9): the object itself, and those
            neighbours that are drawn and lie in the tile.
        """
        steps = torch.tensor([-1., 0., 1.], device=objects.device)
        steps = torch.cartesian_prod(steps, steps).flip(1) * self.spacing
        size = (objects[:, 2:] - objects[:, :2])[:, None]
        boxes = objects[:, None] + (steps * size).repeat(1, 1, 2)
        low, high = tiles[:, None, :2], tiles[:, None, 2:]
        clamped = torch.cat(
            [boxes[..., :2].clamp(low, high), boxes[..., 2:].clamp(low, high)],
            -1)
        area = (clamped[..., 2:] - clamped[..., :2]).prod(-1)
        inside = area >= self.min_inside * size.prod(-1)
        drawn = torch.rand_like(area) < self.neighbour_prob
        middle = torch.arange(9, device=objects.device) == 4
        return clamped, middle | (drawn & inside)

    def compare(self, embeddings: Tensor, regions: SampledBags,
                context: BranchContext, is_last: bool) -> Dict[str, Tensor]:
        """Compare the bags with their crops.

        Raises:
            ValueError: If image and text encoder have other widths.
        """
        crops = self.image_encoder(context.images, regions.bag_rois)
        if crops.shape[1] != context.text_encoder.dim:
            raise ValueError(
                'image_encoder: expected the width '
                f'{context.text_encoder.dim} of the text encoder, got '
                f'{crops.shape[1]}; both must be of one CLIP')
        bags, bag = self.reader(embeddings, regions, context.text_encoder)
        counts = [n for n, in exchange_counts([len(crops)], crops.device)]
        before = sum(counts[:get_rank()])
        ids = self.num_bags + before + torch.arange(
            len(crops), device=crops.device)
        if is_last:
            self.num_bags += sum(counts)
        return self.contrast(bags, ids[bag][:, None], crops, ids, is_last)
