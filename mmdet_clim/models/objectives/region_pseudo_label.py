# Licensed under the Apache License, Version 2.0.

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet_clim.checks import check_range
from mmdet_clim.registry import MODELS

from ..class_texts import ClassTexts
from ..host import upload
from ..losses.clim_region_loss import build_region_loss
from ..losses.metrics import mean_count
from ..text_encoders import DEFAULT_TEMPLATES, Templates
from .base import BaseRegionObjective, BranchContext, BranchStage
from .tile_batch import Regions, TileBatch, as_rois


@MODELS.register_module()
class RegionPseudoLabelObjective(BaseRegionObjective):
    """Teach proposals the class that they themselves resemble most.

    What CLIM is compared with: pseudo-labels in the manner of RegionCLIP
    (REFERENCE.md, section 4, comparison baseline), with the detector as its
    own labeller. The ``max_proposals`` best proposals of a tile, clamped to
    it, each get the class whose text is nearest to their embedding, out of
    the tile's tags; a proposal further than ``min_similarity`` from all of
    them is background and left out.

    Args:
        loss (dict): Config of the loss, normally ``CLIMRegionLoss``, over
            all classes.
        vocabulary: Anything that ``build_vocabulary`` reads: the classes
            which the tags index.
        templates (str or Sequence[str]): See ``resolve_templates``; those
            of the detector's classifier.
        max_proposals (int): Proposals per tile.
        min_overlap (float): Least share of a proposal's area in its tile.
        min_similarity (float): Least cosine of a proposal and its label. If
            ``labelled`` stays at 0, it is too high for the detector.

    Raises:
        ValueError: If a number is out of its range, or the loss is a softmax
            over one class.
    """

    def __init__(self,
                 loss: dict,
                 vocabulary,
                 templates: Templates = DEFAULT_TEMPLATES,
                 max_proposals: int = 16,
                 min_overlap: float = 0.3,
                 min_similarity: float = 0.2,
                 init_cfg=None) -> None:
        super().__init__(init_cfg=init_cfg)
        check_range(-1, 1, min_similarity=min_similarity)
        check_range(1, max_proposals=max_proposals)
        check_range(0, 1, (1, ), min_overlap=min_overlap)
        self.classes = ClassTexts(vocabulary, templates)
        self.region_loss = build_region_loss(loss, len(self.classes))
        self.max_proposals = max_proposals
        self.min_overlap = min_overlap
        self.min_similarity = min_similarity

    def sample(self, tiles: TileBatch, stage: BranchStage) -> Regions:
        """The best proposals of each tagged tile."""
        found = stage.tile_proposals(self.min_overlap, self.max_proposals)
        tagged = upload(tiles.has_tags(), found.owns)
        kept = (found.owns & tagged[:, None]).any(2)
        image, index = kept.nonzero(as_tuple=True)
        rois = as_rois(image, found.boxes[image, index])
        image, tile = torch.stack([image, found.owner[image, index]]).cpu()
        return Regions(rois, image, tiles.members(tile))

    def compare(self, embeddings: Tensor, regions: Regions,
                context: BranchContext, is_last: bool) -> dict[str, Tensor]:
        """Label the regions, and compare them with all classes.

        Returns:
            dict: ``loss``, and ``labelled``, the share of regions that got a
            label, in percent.
        """
        texts = self.classes(context.text_encoder).to(embeddings.device)
        candidates = context.tiles.tag_targets(regions, len(self.classes))
        targets = self.label(embeddings, texts, candidates)
        # As places: a mask would be waited for at each of its uses.
        labelled = targets.any(1).nonzero().flatten()
        chosen = embeddings[labelled]
        loss = self.region_loss(
            chosen, texts, targets[labelled], avg_factor=mean_count(chosen))
        share = 100 * len(labelled) / max(len(targets), 1)
        return {'loss': loss, 'labelled': loss.new_full((), share)}

    @torch.no_grad()
    def label(self, embeddings: Tensor, texts: Tensor,
              candidates: Tensor) -> Tensor:
        """The nearest candidate of each region, if near enough.

        Args:
            embeddings (Tensor): Regions (R, D), of any norm.
            texts (Tensor): Classes (C, D), unit vectors.
            candidates (Tensor): bool (R, C): what each region may be.

        Returns:
            Tensor: bool (R, C), at most one True in each row.
        """
        similarity = F.normalize(embeddings.float(), dim=1) @ texts.t()
        similarity = similarity.masked_fill(~candidates, -2.)
        best, label = similarity.max(1)
        targets = torch.zeros_like(candidates)
        targets[torch.arange(len(label)), label] = best >= self.min_similarity
        return targets
