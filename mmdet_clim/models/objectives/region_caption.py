# Licensed under the Apache License, Version 2.0.

import torch
from torch import Tensor

from mmdet_clim.checks import check_choice, check_range
from mmdet_clim.registry import MODELS

from ..host import upload
from ..losses import FeatureQueue
from ..losses.clim_region_loss import build_region_loss
from ..losses.gather import exchange_counts, gather_rows
from ..losses.metrics import mean_count, recall_at_1
from .base import BaseRegionObjective, BranchContext, BranchStage
from .tile_batch import REGION_KINDS, Regions, TileBatch


@MODELS.register_module()
class RegionCaptionObjective(BaseRegionObjective):
    """Pull every tile to a caption of its own image.

    The regions are the tile boxes themselves, and rectangles of several tiles
    whose positives are the captions of all their members. The texts are one
    caption drawn per tile and a queue of past ones, as published those of
    this rank. A region and a caption belong together where the caption's
    image is one of the region's tiles (REFERENCE.md, section 2, caption
    objective). Images are told apart by their ``image_keys``, which two
    sources with the same ids do not share.

    Args:
        loss (dict): Config of the loss, normally ``CLIMRegionLoss``.
        num_compositions (int): Rectangles per mosaic.
        queue (dict, optional): Config of the queue of past captions, normally
            ``FeatureQueue``; None for none.
        avg_factor (float, optional): Divisor of the sum over regions. None
            averages over the regions of all ranks. The OV-COCO recipe scales
            its average by regions / 4, which is the divisor 4.
        regions (str): ``'tiles'`` as above, or ``'proposals'``: the largest
            likely object of each tile in its place.
        gather (bool): Whether the texts are those of all ranks. Their
            number then grows with the ranks, and the weight of negatives
            falls as it grows.

    Raises:
        ValueError: If an argument is out of its range, or the loss gathers
            texts itself: it would take a text that two ranks have for two.
    """

    def __init__(self,
                 loss: dict,
                 num_compositions: int = 4,
                 queue: dict | None = None,
                 avg_factor: float | None = None,
                 regions: str = 'tiles',
                 gather: bool = False,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        check_range(0, num_compositions=num_compositions)
        check_range(0, without=(0, ), avg_factor=avg_factor)
        check_choice(REGION_KINDS, regions=regions)
        self.region_loss = build_region_loss(loss)
        self.num_compositions = num_compositions
        self.queue: FeatureQueue | None = None if queue is None else \
            MODELS.build(queue)
        self.avg_factor = avg_factor
        self.regions = regions
        self.gather = gather

    def sample(self, tiles: TileBatch, stage: BranchStage) -> Regions:
        """One region per tile, then the composed ones."""
        boxes = stage.largest_in_tiles() if self.regions == 'proposals' \
            else tiles.boxes
        return tiles.regions(boxes, *tiles.compose(self.num_compositions))

    def compare(self, embeddings: Tensor, regions: Regions,
                context: BranchContext, is_last: bool) -> dict[str, Tensor]:
        """Compare the regions with the captions of this step and the queue.

        Raises:
            ValueError: If a tile has no caption, or an embedding of one is
                not finite; the queue keeps nothing of the step then.
        """
        tiles, device = context.tiles, embeddings.device
        without = sum(not of for of in tiles.captions)
        if without:
            raise ValueError(
                'captions: expected at least one of each tile, got none of '
                f'{without} of {len(tiles.captions)}; your own source has to '
                'leave out images without one, as ImageTextDataset does')
        captions = [of[torch.randint(len(of), ())] for of in tiles.captions]
        ids = upload(torch.tensor(tiles.image_keys), embeddings)
        features = context.text_encoder(captions).to(device)

        texts, text_ids, share = features, ids, 1.0
        if self.gather:
            # The text encoder is frozen, so the captions of other ranks serve
            # as plain tensors and only the regions need a gradient.
            counts, = exchange_counts(len(ids))
            texts = gather_rows(features, counts)
            text_ids = gather_rows(ids, counts)
        if not texts.isfinite().all():
            # Every rank that waits for this one sees it, and stops too.
            bad = (~features.isfinite().all(1)).nonzero().flatten().tolist()
            raise ValueError(
                'text_encoder: caption embeddings must be finite, got inf or '
                f'NaN, on this rank for {[captions[i] for i in bad]}')
        if self.queue is not None:
            past, past_ids = self.queue.features, self.queue.ids
            if is_last:
                self.queue.enqueue(features, ids, self.gather)
            texts = torch.cat([texts, past])
            text_ids = torch.cat([text_ids, past_ids])
        if self.gather and len(texts):
            # As many as one rank would have beside its queue.
            own = sum(counts) / len(counts)
            share = (len(texts) - sum(counts) + own) / len(texts)

        targets = match(regions, tiles, text_ids)
        factor = self.avg_factor or mean_count(embeddings)
        loss = self.region_loss(
            embeddings, texts, targets, factor, negative_share=share)
        recall = recall_at_1(embeddings, texts, targets)
        return {'loss': loss, 'recall@1': recall}


def match(regions: Regions, tiles: TileBatch, text_ids: Tensor) -> Tensor:
    """Which region holds the image of which text: bool (R, T).

    Args:
        regions (Regions): R regions.
        tiles (TileBatch): Their tiles.
        text_ids (Tensor): int64 (T,), the key of each text's image.
    """
    keys = upload(tiles.keys_of(regions.image, regions.members), text_ids)
    return (keys[..., None] == text_ids).any(1)
