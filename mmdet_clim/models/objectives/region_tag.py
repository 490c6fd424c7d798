# Licensed under the Apache License, Version 2.0.

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet_clim.checks import check_choice, check_range
from mmdet_clim.registry import MODELS

from ..class_texts import ClassTexts
from ..host import upload
from ..losses.clim_region_loss import build_region_loss
from ..losses.metrics import mean_count, recall_at_1
from ..text_encoders import DEFAULT_TEMPLATES, Templates
from .base import BaseRegionObjective, BranchContext, BranchStage
from .tile_batch import (
    REGION_KINDS,
    Regions,
    TileBatch,
    TileProposals,
    as_rois,
)


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

    With ``regions='best'`` every tag of a tile has a region of its own: of
    those proposals the one with the highest ``sqrt(score) * p(tag)``, where p
    is the probability by which the loss reads the tag in it now. The tile's
    other tags say nothing about it.

    Args:
        loss (dict): Config of the loss, normally ``CLIMRegionLoss``, over
            all classes.
        vocabulary: Anything that ``build_vocabulary`` reads: the classes
            which the tags index.
        templates (str or Sequence[str]): See ``resolve_templates``; those
            of the detector's classifier.
        num_compositions (int): Rectangles per mosaic.
        regions (str): ``'proposals'`` or ``'best'`` as above, or
            ``'tiles'``: the tile boxes themselves.
        min_overlap (float): Least share of a proposal's area in its tile.
        max_proposals (int): Proposals considered per tile.
        refine_regions (bool): Whether in later stages the regions of the
            stage before, as it regresses them, are the proposals.

    Raises:
        ValueError: If a number is out of its range, ``regions`` unknown,
            ``regions='best'`` is to be composed or has a loss without
            probabilities, or the loss is a softmax over one class; in a step,
            if a tag is none of the classes.
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
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        check_range(0, num_compositions=num_compositions)
        check_range(0, 1, (1, ), min_overlap=min_overlap)
        check_range(1, max_proposals=max_proposals)
        check_choice((*REGION_KINDS, 'best'), regions=regions)
        if regions == 'best' and (num_compositions or refine_regions):
            raise ValueError("regions='best': expected num_compositions=0 and "
                             'refine_regions=False, as it has no region of a '
                             f'tile, got {num_compositions} and '
                             f'{refine_regions}')
        self.classes = ClassTexts(vocabulary, templates)
        self.region_loss = build_region_loss(loss, len(self.classes))
        if regions == 'best' and self.region_loss.kind == 'infonce':
            raise ValueError("loss.kind: expected 'bce', 'sigmoid' or "
                             "'softmax' with regions='best', got 'infonce'")
        self.regions = regions
        self.num_compositions = num_compositions
        self.min_overlap = min_overlap
        self.max_proposals = max_proposals
        self.refine_regions = refine_regions

    def sample(self, tiles: TileBatch, stage: BranchStage) -> Regions:
        """One region per tagged tile, then composed ones; or one per tag."""
        tiles.check_tags(len(self.classes))
        if self.regions == 'best':
            return self._best(tiles, stage)
        image, members = tiles.compose(self.num_compositions)
        tagged = (members & tiles.has_tags()[image]).any(1)
        boxes = tiles.boxes
        if self.regions == 'proposals':
            largest = stage.largest_refined if self.refine_regions else \
                stage.largest_in_tiles
            boxes = largest(self.min_overlap, self.max_proposals)
        return tiles.regions(boxes, image[tagged], members[tagged])

    @torch.no_grad()
    def _best(self, tiles: TileBatch, stage: BranchStage) -> Regions:
        found = stage.tile_proposals(self.min_overlap, self.max_proposals)
        image, tile, tag = tiles.each_tag()
        place, of_tile, of_class = upload(
            torch.stack([image, tile, tag]), tiles.boxes)
        # Also without a tag: under SyncBN the other ranks wait for this one.
        index, slot = self._considered(tiles, found)
        embeddings = stage.read_as_text(
            as_rois(index, found.boxes[index, slot]))
        texts = self.classes(stage.context.text_encoder)
        likely = self.region_loss.log_probabilities(
            embeddings, texts.to(embeddings.device))
        row = torch.zeros_like(found.owner).index_put(
            (index, slot), torch.arange(len(index), device=index.device))
        scores = found.proposals.scores[place].clamp(1e-6)
        values = likely[row[place], of_class[:, None]] + scores.log() / 2
        boxes = found.best(values, place, of_tile, tiles.boxes)
        return Regions(
            as_rois(place, boxes), image, tiles.members(tile), tags=tag)

    def _considered(self, tiles: TileBatch,
                    found: TileProposals) -> tuple[Tensor, Tensor]:
        """Image and place (Q,) of the proposals that tags choose from."""
        return found.likely(
            [count * self.max_proposals for count in tiles.counts])

    def compare(self, embeddings: Tensor, regions: Regions,
                context: BranchContext, is_last: bool) -> dict[str, Tensor]:
        """Compare the regions with all classes."""
        texts = self.classes(context.text_encoder).to(embeddings.device)
        targets = context.tiles.tag_targets(regions, len(self.classes))
        silent = None
        if regions.tags is not None:
            own = upload(
                F.one_hot(regions.tags, len(self.classes)).bool(), embeddings)
            targets, silent = own, targets & ~own
        loss = self.region_loss(
            embeddings, texts, targets, mean_count(embeddings), silent=silent)
        recall = recall_at_1(embeddings, texts, targets)
        return {'loss': loss, 'recall@1': recall}
