# Licensed under the Apache License, Version 2.0.
from typing import Sequence

import torch
from mmdet.structures import SampleList
from torch import Tensor

from mmdet_clim.datasets.source_tables import image_key
from mmdet_clim.models.backbones import DenseImageTower
from mmdet_clim.models.losses.clim_region_loss import MAX_LEARNED_TEMPERATURE
from mmdet_clim.models.losses.gather import exchange_counts, gather_rows
from mmdet_clim.models.losses.metrics import recall_at_1
from mmdet_clim.registry import MODELS

from .batch_mosaic import BatchMosaic
from .objective_base import BaseCLIPObjective, Towers, original_temperature


@MODELS.register_module()
class MosaicTextObjective(BaseCLIPObjective):
    """CLIM on CLIP: tiles of mosaics and whole images against captions.

    The images of a batch are tiled into mosaics on the device. The region
    features of the tiles and the image features of the images that stay
    whole are contrasted with one caption of each (REFERENCE.md, section 4).
    A caption also belongs to another image of the same words, on every rank.

    Without grids it is CLIP's own training on whole images.

    Args:
        grids (Sequence[tuple[int, int]]): (rows, cols) of the mosaics of
            each batch, see :class:`BatchMosaic`.
        num_whole (int): Images that stay whole, at least.
        mosaic_size (tuple[int, int], optional): (width, height) in pixels of
            the mosaics. Defaults to that of the images.
        loss (dict): Config of the :class:`CLIMRegionLoss`. Without
            ``temperature``, CLIP's own, which the text tower holds, or the
            largest that is learned where its own is above it (SigLIP's are).

    Raises:
        ValueError: If a grid is wrong, or a batch is smaller than the grids
            ask for.
    """

    def __init__(self,
                 grids: Sequence[tuple[int, int]] = ((2, 2), (3, 3), (4, 4)),
                 num_whole: int = 0,
                 mosaic_size: tuple[int, int] | None = None,
                 loss: dict | None = None,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        self.mosaic = BatchMosaic(grids, num_whole, mosaic_size)
        self._loss_cfg = loss or dict(
            type='mmdet_clim.CLIMRegionLoss',
            kind='infonce',
            learn_temperature=True,
            gather=True)

    @property
    def log_temperature(self) -> Tensor | None:
        """CLIP's logit scale, where the loss learns it."""
        return self.region_loss.log_temperature

    def prepare(self, towers: Towers) -> None:
        """Build the loss, at the temperature of this CLIP."""
        cfg = dict(self._loss_cfg)
        own = round(original_temperature(towers), ndigits=4)
        if cfg.get('learn_temperature'):
            own = min(own, MAX_LEARNED_TEMPERATURE)
        cfg.setdefault('temperature', own)
        self.region_loss = MODELS.build(cfg)

    def loss(self, images: Tensor, samples: SampleList,
             towers: Towers) -> dict[str, Tensor]:
        """See :class:`BaseCLIPObjective`."""
        captions = [_draw(sample.captions[0]) for sample in samples]
        mosaics, rois = self.mosaic(images, [s.img_shape[:2] for s in samples])
        regions = _read(towers.image, mosaics, rois, images[len(rois):])
        texts = towers.text(captions)
        keys = [s.image_keys[0] for s in samples]
        targets = self._same_text(captions, keys, images.device)
        own = torch.eye(len(captions), dtype=torch.bool, device=images.device)
        if targets.shape[1] == len(captions):
            own = targets
        loss = self.region_loss(regions, texts, targets)
        return {'loss': loss, 'recall@1': recall_at_1(regions, texts, own)}

    def _same_text(self, captions: list[str], keys: list[int],
                   device: torch.device) -> Tensor:
        """Which text belongs to which image, bool (N, texts of all ranks).

        That of the same image, and any of the same words.
        """
        # Of each image what it is and what its caption says, as 63 bits.
        mine = torch.tensor([[key, image_key(caption)]
                             for key, caption in zip(keys, captions)],
                            device=device)
        everyone = mine
        if self.region_loss.gather:
            everyone = gather_rows(mine, *exchange_counts(len(mine)))
        return (mine[:, None] == everyone[None]).any(-1)


def _read(tower: DenseImageTower, mosaics: Tensor, rois: Tensor,
          whole: Tensor) -> Tensor:
    """Tiles of mosaics and whole images, (R + N, D) unit vectors.

    Where both have one size, the tower runs once.
    """
    if not len(rois):
        return tower.encode_image(whole)
    if not len(whole):
        return tower.region_features(mosaics, rois)
    if mosaics.shape[1:] == whole.shape[1:]:
        _, both = tower.encode(torch.cat([mosaics, whole]))
        tiled, alone = both.split([len(mosaics), len(whole)])
    else:
        tiled, alone = tower.encode(mosaics)[1], tower.encode(whole)[1]
    regions = tower.region_features_of(tiled, rois)
    return torch.cat([regions, tower.image_embeddings_of(alone)])


def _draw(captions: Sequence[str]) -> str:
    return captions[int(torch.randint(len(captions), ()))]
