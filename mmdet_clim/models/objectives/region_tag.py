# Licensed under the Apache License, Version 2.0.
from typing import Dict, List, Optional, Sequence

import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_clim.datasets.vocabulary import build_vocabulary
from mmdet_clim.models.text_encoders import (
    DEFAULT_TEMPLATES,
    BaseTextEncoder,
    encode_classes,
)
from mmdet_clim.registry import MODELS

from .base import BaseRegionObjective, SampledRegions, mean_count, recall_at_1
from .composition import compose_tiles, union_boxes


@MODELS.register_module()
class RegionTagObjective(BaseRegionObjective):
    """Teach the largest likely object of every tile the tile's tags.

    Each proposal goes to the tile that holds most of it, if more than
    ``min_overlap`` of its own area; of the ``max_proposals`` best by score of
    a tile, clamped to the tile, the largest is the tile's region; a tile
    without a proposal gives its own box. Composed regions are the unions of
    their members' regions, with the union of their tags (REFERENCE.md,
    section 2, tag objective). Regions without a tag say nothing and are left
    out.

    Args:
        loss (dict): Config of the loss, normally ``CLIMRegionLoss``, over
            all classes.
        vocabulary: Anything that ``build_vocabulary`` reads: the classes
            which the tags index.
        templates (Sequence[str]): Prompts with one ``{}`` for the name; those
            of the detector's classifier.
        num_compositions (int): Rectangles per mosaic.
        min_overlap (float): Least share of a proposal's area in its tile.
        max_proposals (int): Proposals considered per tile.
    """

    needs_proposals = True

    def __init__(self,
                 loss: dict,
                 vocabulary,
                 templates: Sequence[str] = DEFAULT_TEMPLATES,
                 num_compositions: int = 4,
                 min_overlap: float = 0.3,
                 max_proposals: int = 128,
                 init_cfg: Optional[dict] = None) -> None:
        super().__init__(init_cfg=init_cfg)
        if num_compositions < 0:
            raise ValueError('num_compositions: expected a count >= 0, got '
                             f'{num_compositions}')
        self.region_loss = MODELS.build(loss)
        self.vocabulary = build_vocabulary(vocabulary)
        self.templates = tuple(templates)
        self.num_compositions = num_compositions
        self.min_overlap = min_overlap
        self.max_proposals = max_proposals
        self.register_buffer(
            'class_embeddings', torch.empty(0), persistent=False)

    def sample(self, proposals: InstanceData,
               data_sample: DetDataSample) -> SampledRegions:
        """The largest likely object per tagged tile, then composed ones."""
        tiles = data_sample.gt_instances.bboxes
        members = torch.cat([
            torch.eye(len(tiles), dtype=torch.bool),
            compose_tiles(data_sample.mosaic_grid, self.num_compositions)
        ]).to(tiles.device)
        tagged = torch.tensor([len(tags) > 0 for tags in data_sample.tags],
                              dtype=torch.bool,
                              device=tiles.device)
        members = members[(members & tagged).any(1)]
        regions = self.select(proposals.bboxes, tiles)
        return SampledRegions(
            union_boxes(regions, members), members, data_sample)

    def select(self, proposals: Tensor, tiles: Tensor) -> Tensor:
        """One box per tile.

        Args:
            proposals (Tensor): Shape (P, 4), absolute xyxy, best score first.
            tiles (Tensor): Shape (K, 4), absolute xyxy.

        Returns:
            Tensor: Shape (K, 4): the largest proposal of each tile clamped to
            it, or the tile itself.
        """
        if len(proposals) == 0:
            return tiles
        share, owner = bbox_overlaps(proposals, tiles, mode='iof').max(1)
        owns = torch.zeros(
            len(proposals), len(tiles), dtype=torch.bool, device=tiles.device)
        owns[torch.arange(len(owner)), owner] = share > self.min_overlap
        owns &= owns.cumsum(0) <= self.max_proposals
        of_tile = tiles[owner]
        clamped = torch.cat([
            torch.max(proposals[:, :2], of_tile[:, :2]),
            torch.min(proposals[:, 2:], of_tile[:, 2:])
        ], 1)
        areas = (clamped[:, 2:] - clamped[:, :2]).clamp(min=0).prod(1)
        largest = (areas[:, None] + 1).masked_fill(~owns, 0).argmax(0)
        return torch.where(owns.any(0)[:, None], clamped[largest], tiles)

    def loss(self,
             embeddings: Tensor,
             samples: List[SampledRegions],
             text_encoder: BaseTextEncoder,
             last_stage: bool = True) -> Dict[str, Tensor]:
        """Compare the regions with all classes."""
        if len(self.class_embeddings) == 0:
            self.class_embeddings = encode_classes(text_encoder,
                                                   self.vocabulary.names,
                                                   self.templates)
        self.class_embeddings = self.class_embeddings.to(embeddings.device)
        targets = torch.cat([self.match(sample) for sample in samples])
        targets = targets.to(embeddings.device)
        loss = self.region_loss(
            embeddings,
            self.class_embeddings,
            targets,
            avg_factor=mean_count(embeddings))
        return {
            'loss': loss,
            'recall@1': recall_at_1(embeddings, self.class_embeddings, targets)
        }

    def match(self, sample: SampledRegions) -> Tensor:
        """Which region shows which class: bool (n, C)."""
        tags = sample.data_sample.tags
        of_tile = torch.zeros(len(tags), len(self.vocabulary))
        for row, of_image in zip(of_tile, tags):
            row[of_image] = 1
        return sample.members.cpu().float() @ of_tile > 0
