# Licensed under the Apache License, Version 2.0.
from typing import Dict, Optional

import torch
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox2roi
from mmdet.utils import reduce_mean
from torch import Tensor

from mmdet_clim.registry import MODELS

from .objective_base import (
    BaseCLIPObjective,
    Towers,
    crop_images,
)


@MODELS.register_module()
class SelfDistillationObjective(BaseCLIPObjective):
    r"""Region features that equal what CLIP sees in the region's crop.

    The idea of CLIPSelf (arXiv 2310.01403): with :math:`r_k` the region
    feature of box :math:`k` and :math:`o_k` the image embedding of its crop
    by the original CLIP, both of norm one,

    .. math:: L = \frac{1}{K} \sum_k (1 - r_k \cdot o_k)

    It needs no text. :math:`K` is the number of boxes per process, on average
    over the processes, as DDP averages the gradients.

    Args:
        boxes (dict, optional): Config of a :class:`BoxSource`. Defaults to
            :class:`GridBoxes`.
        crop_size (int, optional): Side in pixels of the squares that crops
            are squashed to. Defaults to what CLIP was trained on.
        loss_weight (float): Factor on the loss.
    """

    def __init__(self,
                 boxes: Optional[dict] = None,
                 crop_size: Optional[int] = None,
                 loss_weight: float = 1.0,
                 init_cfg: Optional[dict] = None) -> None:
        super().__init__(init_cfg=init_cfg)
        self.boxes = MODELS.build(boxes or dict(type='mmdet_clim.GridBoxes'))
        self.crop_size = crop_size
        self.loss_weight = loss_weight

    def loss(self, images: Tensor, samples: SampleList,
             towers: Towers) -> Dict[str, Tensor]:
        """See :class:`BaseCLIPObjective`."""
        rois = bbox2roi([self.boxes(s).to(images.device) for s in samples])
        with torch.no_grad():
            crops = crop_images(images, rois, self.crop_size
                                or towers.original.native_size)
            wanted = towers.original.encode_image(crops)
        regions = towers.image.region_features(images, rois)
        cosines = (regions * wanted).sum(1)
        count = reduce_mean(cosines.new_tensor(float(len(cosines))))
        return {'loss': self.loss_weight * (1 - cosines).sum() / count}
