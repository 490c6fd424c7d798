# Licensed under the Apache License, Version 2.0.
"""Embeddings of annotated regions, each way that CLIP can be asked for."""
from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet_clim.models.backbones import EncodedImages, ImageTower

from .objective_base import crop_images

#: How the embedding of a region is read.
REGION_WAYS = ('roi', 'mask', 'crop')
#: Crops that are encoded at a time.
CROP_BATCH = 64


def roi_embeddings(tower: ImageTower, encoded: EncodedImages,
                   boxes: Tensor) -> Tensor:
    """By the box on the dense features.

    Args:
        tower (ImageTower): The tower.
        encoded (EncodedImages): One image, encoded by the tower.
        boxes (Tensor): (R, 4), absolute xyxy pixels of the image.

    Returns:
        Tensor: (R, D) unit vectors.
    """
    rois = torch.cat([boxes.new_zeros(len(boxes), 1), boxes], 1)
    return tower.region_features_of(encoded, rois)


def mask_embeddings(tower: ImageTower, encoded: EncodedImages,
                    masks: Tensor) -> Tensor:
    """By the mean of the dense features within a mask.

    A position weighs as much as of its area the mask covers.

    Args:
        tower (ImageTower): The tower.
        encoded (EncodedImages): One image of H x W, encoded by the tower.
        masks (Tensor): (R, H, W), 1 within the region.

    Returns:
        Tensor: (R, D) unit vectors; zero for an empty mask.
    """
    dense = tower.dense_features_of(encoded)
    height, width = (tower.stride * side for side in dense.shape[-2:])
    masks = F.pad(
        masks.to(dense),
        (0, width - masks.shape[-1], 0, height - masks.shape[-2]))
    weights = F.avg_pool2d(masks[None], tower.stride)[0]
    pooled = torch.einsum('rhw,dhw->rd', weights, dense[0])
    return F.normalize(pooled, dim=1)


def crop_embeddings(tower: ImageTower,
                    image: Tensor,
                    boxes: Tensor,
                    enlarge: float = 1.5,
                    crop_size: Optional[int] = None) -> Tensor:
    """By the image embedding of the crop of an enlarged box.

    Args:
        tower (ImageTower): The tower.
        image (Tensor): (1, 3, H, W), normalised.
        boxes (Tensor): (R, 4), absolute xyxy pixels of the image.
        enlarge (float): Factor on both sides; what reaches out of the image
            is cut off.
        crop_size (int, optional): Side in pixels of the squares that the
            crops are squashed to. Defaults to what the tower was trained on.

    Returns:
        Tensor: (R, D) unit vectors.
    """
    boxes = enlarged(boxes, enlarge, image.shape[-2:])
    rois = torch.cat([boxes.new_zeros(len(boxes), 1), boxes], 1)
    crops = (
        crop_images(image, part, crop_size or tower.native_size)
        for part in rois.split(CROP_BATCH))
    return torch.cat([tower.encode_image(part) for part in crops])


def enlarged(boxes: Tensor, factor: float, size: Tuple[int, int]) -> Tensor:
    """Boxes (R, 4) around the same centres, within (height, width)."""
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, \
        (boxes[:, 2:] - boxes[:, :2]) * (factor / 2)
    limit = boxes.new_tensor([size[1], size[0]])
    zero = torch.zeros_like(limit)
    return torch.cat([
        torch.maximum(centre - half, zero),
        torch.minimum(centre + half, limit)
    ], 1)
