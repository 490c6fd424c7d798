# Licensed under the Apache License, Version 2.0.
from typing import Dict, List, Optional

import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_clim.models.text_encoders import BaseTextEncoder
from mmdet_clim.registry import MODELS

from .bag_of_regions_contrast import BagContrast, repeat_first
from .bag_of_regions_proposals import LikelyObjects
from .bag_of_regions_reading import BagReader, SampledBags
from .base import BaseRegionObjective
from .composition import compose_tiles, union_boxes
from .tile_proposals import check_region_kind


@MODELS.register_module()
class BagOfRegionsObjective(BaseRegionObjective):
    """BARON's captions, and CLIM on them: bags of regions meet captions.

    Every tile of a mosaic gives a bag of its likely objects and the tile box;
    rectangles of several tiles give a bag of all their members' regions. The
    positions in a bag are relative to its tile, or to the rectangle's union
    box; its positives are the captions of its tiles' images (REFERENCE.md,
    section 3). A plain captioned image is a mosaic of one tile.

    Images are told apart by their ``image_keys``, one per tile.

    Args:
        loss (dict): Config of the loss, normally
            ``CLIMRegionLoss(kind='infonce')``.
        bags (dict, optional): Arguments of :class:`BagReader`, such as
            ``num_words``.
        queue (dict, optional): Config of the queues of past bags and past
            captions, one each, normally ``TextQueue``; None for none.
        regions (str): ``'proposals'``: bags as above; ``'tiles'``: of the tile
            boxes alone.
        proposals (dict, optional): Arguments of :class:`LikelyObjects`.
        num_compositions (int): Rectangles per mosaic.
        max_captions (int): Captions of an image that are compared, drawn at
            random where there are more.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(self,
                 loss: dict,
                 bags: Optional[dict] = None,
                 queue: Optional[dict] = None,
                 regions: str = 'proposals',
                 proposals: Optional[dict] = None,
                 num_compositions: int = 4,
                 max_captions: int = 5,
                 init_cfg: Optional[dict] = None) -> None:
        super().__init__(init_cfg=init_cfg)
        if num_compositions < 0:
            raise ValueError('num_compositions: expected a count >= 0, got '
                             f'{num_compositions}')
        if max_captions < 1:
            raise ValueError(
                f'max_captions: expected a count >= 1, got {max_captions}')
        check_region_kind(regions)
        self.reader = BagReader(**(bags or {}))
        self.contrast = BagContrast(loss, queue)
        self.regions = regions
        self.likely_objects = LikelyObjects(**(proposals or {}))
        self.num_compositions = num_compositions
        self.max_captions = max_captions

    @property
    def needs_proposals(self) -> bool:
        return self.regions == 'proposals'

    def sample(self, proposals: InstanceData,
               data_sample: DetDataSample) -> SampledBags:
        """The tile boxes, then likely objects; a bag per tile, then others."""
        tiles = data_sample.gt_instances.bboxes
        bboxes, owners = tiles, torch.arange(len(tiles), device=tiles.device)
        if self.needs_proposals:
            objects, owners_of = self.likely_objects(proposals, tiles)
            bboxes = torch.cat([bboxes, objects])
            owners = torch.cat([owners, owners_of])
        of_bag = torch.cat([
            torch.eye(len(tiles), dtype=torch.bool),
            compose_tiles(data_sample.mosaic_grid, self.num_compositions)
        ]).to(tiles.device)
        return SampledBags(
            bboxes,
            F.one_hot(owners, len(tiles)).bool(),
            data_sample,
            bags=of_bag[:, owners],
            bag_bboxes=union_boxes(tiles, of_bag),
            is_core=torch.arange(len(bboxes), device=tiles.device)
            < len(tiles))

    def loss(self,
             embeddings: Tensor,
             samples: List[SampledBags],
             text_encoder: BaseTextEncoder,
             last_stage: bool = True) -> Dict[str, Tensor]:
        """Compare the bags with the captions of this step and the queues."""
        captions, text_ids = [], []
        for sample in samples:
            for key, of_tile in zip(sample.data_sample.image_keys,
                                    sample.data_sample.captions):
                chosen = torch.randperm(len(of_tile))[:self.max_captions]
                captions += [of_tile[i] for i in chosen]
                text_ids += [key] * len(chosen)
        device = embeddings.device
        bags, bag = self.reader(embeddings, samples, text_encoder)
        ids = [image_ids(sample).to(device) for sample in samples]
        width = max(of.shape[1] for of in ids)
        ids = torch.cat([repeat_first(of, width) for of in ids])
        return self.contrast(bags, ids[bag],
                             text_encoder(captions).to(device),
                             torch.tensor(text_ids, device=device), last_stage)


def image_ids(sample: SampledBags) -> Tensor:
    """Which images each bag of a mosaic holds.

    Returns:
        Tensor: int64 (B, M), the ``image_keys`` of the tiles of each bag; the
        first one again where a bag has fewer than the largest.
    """
    tiles = (sample.bags.float() @ sample.members.float() > 0).cpu()
    order = tiles.float().argsort(dim=1, descending=True, stable=True)
    order = order[:, :int(tiles.sum(1).max())]
    order = torch.where(tiles.gather(1, order), order, order[:, :1])
    return torch.tensor(sample.data_sample.image_keys)[order]
