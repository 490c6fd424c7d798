# Licensed under the Apache License, Version 2.0.

import torch
from torch import Tensor, nn

from mmdet_clim.checks import check_choice, check_range
from mmdet_clim.registry import MODELS

from ...host import upload
from ...region_readers import BaseRegionReader
from ...text_encoders import BaseTextEncoder
from ..base import BaseRegionObjective, BranchContext, BranchStage
from ..tile_batch import REGION_KINDS, TileBatch, as_rois
from .contrast import BagContrast
from .likely_objects import LikelyObjects
from .reading import BagReader, SampledBags


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
        bags (dict): Arguments of :class:`BagReader`, such as ``word_dim``.
        queue (dict, optional): Config of the queues of past bags and past
            captions, one each, normally ``FeatureQueue``; None for none.
        regions (str): ``'proposals'``: bags as above; ``'tiles'``: of the tile
            boxes alone.
        proposals (dict, optional): Arguments of :class:`LikelyObjects`.
        num_compositions (int): Rectangles per mosaic.
        max_captions (int, optional): Captions of an image that are compared,
            drawn at random where there are more. None: all.

        gather (bool): Whether bags and captions of all ranks are compared, and
            one queue holds those of all. Their number then grows with the
            ranks, and with it the share of a bag in the mean.

    Raises:
        ValueError: If an argument is out of its range.
    """

    takes_words = True

    def __init__(self,
                 loss: dict,
                 bags: dict,
                 queue: dict | None = None,
                 regions: str = 'proposals',
                 proposals: dict | None = None,
                 num_compositions: int = 4,
                 max_captions: int | None = None,
                 gather: bool = False,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        check_range(0, num_compositions=num_compositions)
        check_range(1, max_captions=max_captions)
        check_choice(REGION_KINDS, regions=regions)
        self.reader = BagReader(**bags)
        self.contrast = BagContrast(loss, queue, gather)
        self.regions = regions
        self.likely_objects = LikelyObjects(**(proposals or {}))
        self.num_compositions = num_compositions
        self.max_captions = max_captions

    def check(self, name: str, detector: nn.Module, reader: BaseRegionReader,
              text_encoder: BaseTextEncoder | None) -> None:
        """Raise an error if the text encoder can not read bags."""
        super().check(name, detector, reader, text_encoder)
        self.reader.check(text_encoder)

    def sample(self, tiles: TileBatch, stage: BranchStage) -> SampledBags:
        """The tile boxes, then likely objects; a bag per tile and others."""
        is_tile = upload(tiles.is_tile(), tiles.boxes)
        image, tile = is_tile.nonzero(as_tuple=True)
        boxes = tiles.boxes[image, tile]
        num_tiles = len(boxes)
        if self.regions == 'proposals':
            parts = zip((boxes, image, tile), self.likely_objects(stage))
            boxes, image, tile = map(torch.cat, parts)
        bag_image, bag_tiles = tiles.compose(self.num_compositions)
        around = tiles.regions(tiles.boxes, bag_image, bag_tiles)
        own = upload(bag_image, image)[:, None] == image
        host = torch.stack([image, tile]).cpu()
        return SampledBags(
            as_rois(image, boxes),
            host[0],
            tiles.members(host[1]),
            bags=own & upload(bag_tiles, image)[:, tile],
            bag_rois=around.rois,
            is_core=torch.arange(len(boxes), device=boxes.device) < num_tiles,
            is_composed=bag_tiles.sum(1) > 1,
            bag_keys=tiles.keys_of(bag_image, bag_tiles))

    def compare(self, embeddings: Tensor, regions: SampledBags,
                context: BranchContext, is_last: bool) -> dict[str, Tensor]:
        """Compare the bags with the captions of this step and the queues."""
        tiles, encoder = context.tiles, context.text_encoder
        captions, text_ids = [], []
        for key, of_tile in zip(tiles.image_keys, tiles.captions):
            chosen = torch.randperm(len(of_tile))[:self.max_captions]
            captions += [of_tile[i] for i in chosen]
            text_ids += [key] * len(chosen)
        device = embeddings.device
        bags, bag = self.reader(embeddings, regions, encoder)
        bag_ids = upload(regions.bag_keys, bag)[bag]
        texts, ids = encoder(captions).to(device), torch.tensor(text_ids)
        return self.contrast(bags, bag_ids, texts, upload(ids, bag), is_last)
