# Licensed under the Apache License, Version 2.0.
from typing import Dict, List, Optional, Sequence

import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_clim.models.text_encoders import DEFAULT_TEMPLATES, BaseTextEncoder
from mmdet_clim.registry import MODELS

from .base import BaseRegionObjective, SampledRegions, mean_count, recall_at_1
from .class_texts import ClassTexts
from .composition import compose_tiles, union_boxes
from .tile_proposals import check_region_kind, largest_in_tiles


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
        regions (str): ``'proposals'`` as above, or ``'tiles'``: the tile
            boxes themselves.
        min_overlap (float): Least share of a proposal's area in its tile.
        max_proposals (int): Proposals considered per tile.

    Raises:
        ValueError: If ``num_compositions`` is negative or ``regions``
            unknown.
    """

    def __init__(self,
                 loss: dict,
                 vocabulary,
                 templates: Sequence[str] = DEFAULT_TEMPLATES,
                 num_compositions: int = 4,
                 regions: str = 'proposals',
                 min_overlap: float = 0.3,
                 max_proposals: int = 128,
                 init_cfg: Optional[dict] = None) -> None:
        super().__init__(init_cfg=init_cfg)
        if num_compositions < 0:
            raise ValueError('num_compositions: expected a count >= 0, got '
                             f'{num_compositions}')
        check_region_kind(regions)
        self.region_loss = MODELS.build(loss)
        self.classes = ClassTexts(vocabulary, templates)
        self.regions = regions
        self.num_compositions = num_compositions
        self.min_overlap = min_overlap
        self.max_proposals = max_proposals

    @property
    def needs_proposals(self) -> bool:
        return self.regions == 'proposals'

    def sample(self, proposals: InstanceData,
               data_sample: DetDataSample) -> SampledRegions:
        """One region per tagged tile, then composed ones."""
        tiles = data_sample.gt_instances.bboxes
        members = torch.cat([
            torch.eye(len(tiles), dtype=torch.bool),
            compose_tiles(data_sample.mosaic_grid, self.num_compositions)
        ]).to(tiles.device)
        tagged = torch.tensor([len(tags) > 0 for tags in data_sample.tags],
                              dtype=torch.bool,
                              device=tiles.device)
        members = members[(members & tagged).any(1)]
        regions = tiles
        if self.needs_proposals:
            regions = largest_in_tiles(proposals.bboxes, tiles,
                                       self.min_overlap, self.max_proposals)
        return SampledRegions(
            union_boxes(regions, members), members, data_sample)

    def loss(self,
             embeddings: Tensor,
             samples: List[SampledRegions],
             text_encoder: BaseTextEncoder,
             last_stage: bool = True) -> Dict[str, Tensor]:
        """Compare the regions with all classes."""
        texts = self.classes(text_encoder).to(embeddings.device)
        targets = torch.cat([
            sample.tag_targets(len(self.classes)) for sample in samples
        ]).to(embeddings.device)
        loss = self.region_loss(
            embeddings, texts, targets, avg_factor=mean_count(embeddings))
        return {
            'loss': loss,
            'recall@1': recall_at_1(embeddings, texts, targets)
        }
