# Licensed under the Apache License, Version 2.0.
from typing import Dict, Optional

from torch import Tensor

from mmdet_clim.models.checks import check_range
from mmdet_clim.models.class_texts import ClassTexts
from mmdet_clim.models.losses.metrics import mean_count, recall_at_1
from mmdet_clim.models.text_encoders import DEFAULT_TEMPLATES, Templates
from mmdet_clim.registry import MODELS

from .base import BaseRegionObjective, build_region_loss
from .context import BranchContext, BranchStage
from .tile_batch import Regions, TileBatch, check_region_kind


@MODELS.register_module()
class RegionTagObjective(BaseRegionObjective):
    """Teach the largest likely object of every tile the tile's tags.

    Each proposal goes to the tile that holds most of it, if more than
    ``min_overlap`` of its own area; of the ``max_proposals`` best by score of
    a tile, clamped to the tile, the largest is the tile's region; a tile
    without a proposal gives its own box. Composed regions are the unions of
    their members' regions, with the union of their tags (REFERENCE.md,
    section 2, tag objective). Regions without a tag say nothing and are left
    out. In the later stages of a cascade the proposals are those that the
    stages refined, or, as published, what became of the regions themselves,
    single and composed.

    Args:
        loss (dict): Config of the loss, normally ``CLIMRegionLoss``, over
            all classes.
        vocabulary: Anything that ``build_vocabulary`` reads: the classes
            which the tags index.
        templates (str or Sequence[str]): Prompts with one ``{}`` for the
            name, or ``'vild'`` or ``'imagenet'``; those of the detector's
            classifier.
        num_compositions (int): Rectangles per mosaic.
        regions (str): ``'proposals'`` as above, or ``'tiles'``: the tile
            boxes themselves.
        min_overlap (float): Least share of a proposal's area in its tile.
        max_proposals (int): Proposals considered per tile.
        refine_regions (bool): Whether in later stages the regions of the
            stage before, as it regresses them, are the proposals.

    Raises:
        ValueError: If ``num_compositions`` is negative or ``regions``
            unknown.
    """

    def __init__(self,
                 loss: dict,
                 vocabulary,
                 templates: Templates = DEFAULT_TEMPLATES,
                 num_compositions: int = 4,
                 regions: str = 'proposals',
                 min_overlap: float = 0.3,
                 max_proposals: int = 128,
                 refine_regions: bool = False,
                 init_cfg: Optional[dict] = None) -> None:
        super().__init__(init_cfg=init_cfg)
        check_range(0, num_compositions=num_compositions)
        check_region_kind(regions)
        self.region_loss = build_region_loss(loss)
        self.classes = ClassTexts(vocabulary, templates)
        self.regions = regions
        self.num_compositions = num_compositions
        self.min_overlap = min_overlap
        self.max_proposals = max_proposals
        self.refine_regions = refine_regions

    def sample(self, tiles: TileBatch, stage: BranchStage) -> Regions:
        """One region per tagged tile, then composed ones."""
        image, members = tiles.compose(self.num_compositions)
        tagged = (members & tiles.has_tags()[image]).any(1)
        boxes = tiles.boxes
        if self.regions == 'proposals':
            largest = stage.largest_refined if self.refine_regions else \
                stage.largest_in_tiles
            boxes = largest(self.min_overlap, self.max_proposals)
        return tiles.regions(boxes, image[tagged], members[tagged])

    def compare(self, embeddings: Tensor, regions: Regions,
                context: BranchContext, is_last: bool) -> Dict[str, Tensor]:
        """Compare the regions with all classes."""
        texts = self.classes(context.text_encoder).to(embeddings.device)
        targets = context.tiles.tag_targets(regions, len(self.classes))
        loss = self.region_loss(
            embeddings, texts, targets, avg_factor=mean_count(embeddings))
        return {
            'loss': loss,
            'recall@1': recall_at_1(embeddings, texts, targets)
        }
