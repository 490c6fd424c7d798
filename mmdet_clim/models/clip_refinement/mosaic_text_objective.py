# Licensed under the Apache License, Version 2.0.
import math
from typing import Dict, List, Optional, Sequence, Tuple

import torch
from mmdet.structures import SampleList
from torch import Tensor

from mmdet_clim.checks import check_range
from mmdet_clim.datasets.source_tables import image_key
from mmdet_clim.models.backbones import DenseImageTower, EncodedImages
from mmdet_clim.models.losses.clim_region_loss import max_learned_temperature
from mmdet_clim.models.losses.gather import exchange_counts, gather_rows
from mmdet_clim.models.losses.metrics import recall_at_1
from mmdet_clim.registry import MODELS

from .batch_mosaic import BatchMosaic
from .objective_base import (
    BaseCLIPObjective,
    Towers,
    original_bias,
    original_temperature,
)
from .patch_pooling import text_weighted


@MODELS.register_module()
class MosaicTextObjective(BaseCLIPObjective):
    """CLIM on CLIP: tiles of mosaics and whole images against captions.

    The images of a batch are tiled into mosaics on the device. The region
    features of the tiles and the image features of the images that stay
    whole are contrasted with one caption of each (REFERENCE.md, section 4).
    A caption also belongs to another image of the same words, on every rank.

    Without grids it is CLIP's own training on whole images.

    A tile shows an object and what is around it. With ``text_sharpness``, the
    patches that resemble its caption weigh more
    (:func:`~.patch_pooling.text_weighted`).

    Args:
        grids (Sequence[tuple[int, int]]): (rows, cols) of the mosaics of
            each batch, see :class:`BatchMosaic`.
        num_whole (int): Images that stay whole, at least.
        mosaic_size (tuple[int, int], optional): (width, height) in pixels of
            the mosaics. Defaults to that of the images.
        text_sharpness (float, optional): By how much patches that resemble
            the caption of their tile weigh more. Defaults to all alike: what
            RoIAlign reads.
        loss (dict): Config of the :class:`CLIMRegionLoss`. Without
            ``temperature``, CLIP's own, which the text tower holds, or the
            largest that is learned where its own is above it (SigLIP's are,
            for which ``kind='sigmoid'`` has no limit). Without ``bias``,
            'sigmoid' takes CLIP's own where it has one.

    Raises:
        ValueError: If a grid or ``text_sharpness`` is wrong, or a batch is
            smaller than the grids ask for.
    """

    def __init__(self,
                 grids: Sequence[Tuple[int, int]] = ((2, 2), (3, 3), (4, 4)),
                 num_whole: int = 0,
                 mosaic_size: Optional[Tuple[int, int]] = None,
                 text_sharpness: Optional[float] = None,
                 loss: Optional[dict] = None,
                 init_cfg: Optional[dict] = None) -> None:
        super().__init__(init_cfg=init_cfg)
        check_range(0, without=(0, math.inf), text_sharpness=text_sharpness)
        self.mosaic = BatchMosaic(grids, num_whole, mosaic_size)
        self.text_sharpness = text_sharpness
        self._loss_cfg = dict(
            loss or dict(
                type='mmdet_clim.CLIMRegionLoss',
                kind='infonce',
                learn_temperature=True,
                gather=True))

    @property
    def clip_weights(self) -> Dict[str, Tensor]:
        """CLIP's scale and bias, those that the loss learns."""
        loss = self.region_loss
        learned = dict(logit_scale=loss.log_temperature, logit_bias=loss.bias)
        return {
            name: value
            for name, value in learned.items() if isinstance(value, Tensor)
        }

    def prepare(self, towers: Towers) -> None:
        """Build the loss, at the temperature and bias of this CLIP."""
        cfg = dict(self._loss_cfg)
        own = round(original_temperature(towers), ndigits=4)
        if cfg.get('learn_temperature'):
            own = min(own, max_learned_temperature(cfg.get('kind', 'bce')))
        cfg.setdefault('temperature', own)
        if cfg.get('kind') == 'sigmoid':
            cfg.setdefault('bias', original_bias(towers))
        self.region_loss = MODELS.build(cfg)

    def loss(self, images: Tensor, samples: SampleList,
             towers: Towers) -> Dict[str, Tensor]:
        """See :class:`BaseCLIPObjective`."""
        captions = [_draw(sample.captions[0]) for sample in samples]
        mosaics, rois = self.mosaic(images, [s.img_shape[:2] for s in samples])
        texts = towers.text(captions)
        regions = self._read(towers.image, mosaics, rois, images[len(rois):],
                             texts)
        keys = [s.image_keys[0] for s in samples]
        targets = self._same_text(captions, keys, images.device)
        own = torch.eye(len(captions), dtype=torch.bool, device=images.device)
        if targets.shape[1] == len(captions):
            own = targets
        return {
            'loss': self.region_loss(regions, texts, targets),
            'recall@1': recall_at_1(regions.detach(), texts.detach(), own)
        }

    def _same_text(self, captions: List[str], keys: List[int],
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

    def _read(self, tower: DenseImageTower, mosaics: Tensor, rois: Tensor,
              whole: Tensor, texts: Tensor) -> Tensor:
        """Tiles of mosaics and whole images, (R + N, D) unit vectors.

        Where both have one size, the tower runs once.
        """
        if not len(rois):
            return tower.encode_image(whole)
        if not len(whole):
            return self._read_tiles(tower,
                                    tower.encode(mosaics)[1], rois, texts)
        if mosaics.shape[1:] == whole.shape[1:]:
            _, both = tower.encode(torch.cat([mosaics, whole]))
            tiled, alone = both.split([len(mosaics), len(whole)])
        else:
            tiled, alone = tower.encode(mosaics)[1], tower.encode(whole)[1]
        return torch.cat([
            self._read_tiles(tower, tiled, rois, texts),
            tower.image_embeddings_of(alone)
        ])

    def _read_tiles(self, tower: DenseImageTower, encoded: EncodedImages,
                    rois: Tensor, texts: Tensor) -> Tensor:
        if self.text_sharpness is None:
            return tower.region_features_of(encoded, rois)
        return text_weighted(
            tower.dense_features_of(encoded), rois, tower.stride,
            texts[:len(rois)], self.text_sharpness)


def _draw(captions: Sequence[str]) -> str:
    return captions[int(torch.randint(len(captions), ()))]
