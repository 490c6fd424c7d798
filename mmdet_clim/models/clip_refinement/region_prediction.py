# Licensed under the Apache License, Version 2.0.
"""Embeddings of annotated regions, each way that CLIP can be asked for."""

import torch
import torch.nn.functional as F
from mmdet.structures.bbox import bbox2roi, bbox_xyxy_to_cxcywh
from torch import Tensor

from mmdet_clim.models.backbones import EncodedImages, ImageTower

from .objective_base import crop_images

#: How the embedding of a region is read.
REGION_WAYS = ('roi', 'mask', 'crop')
#: Factor on the sides of a box before its crop.
CROP_ENLARGE = 1.5
#: Crops that are encoded at a time.
CROP_BATCH = 64


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


def crop_embeddings(tower: ImageTower, image: Tensor, boxes: Tensor,
                    enlarge: Tensor) -> Tensor:
    """By the image embedding of the crop of an enlarged box.

    Args:
        tower (ImageTower): The tower.
        image (Tensor): (1, 3, H, W), normalised.
        boxes (Tensor): (R, 4), absolute xyxy pixels of the image.
        enlarge (Tensor): Factor (R,) on both sides of each; what reaches out
            of the image is cut off.

    Returns:
        Tensor: (R, D) unit vectors.
    """
    boxes = enlarged(boxes, enlarge, image.shape[-2:])
    return torch.cat([
        tower.encode_image(letterbox(image, part, tower.native_size))
        for part in boxes.split(CROP_BATCH)
    ])


def letterbox(image: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Cut boxes out of an image and fit each into the middle of a square.

    The longer side of a box fills the square; what the shorter one leaves
    over, above and below or at both sides, has the mean colour.

    Args:
        image (Tensor): (1, 3, H, W), normalised.
        boxes (Tensor): (R, 4), absolute xyxy pixels of the image.
        size (int): Side of the square in pixels.

    Returns:
        Tensor: (R, 3, size, size) float32.
    """
    centre, extent = bbox_xyxy_to_cxcywh(boxes).split(2, 1)
    side = extent.amax(1, keepdim=True)
    squares = torch.cat([centre - side / 2, centre + side / 2], 1)
    crops = crop_images(image, bbox2roi([squares]), size)
    # Of each pixel of the square how far it is from the middle, and how far
    # the box reaches, both as a share of the square's side.
    places = (torch.arange(size, device=crops.device) + 0.5) / size - 0.5
    inside = places.abs() <= (extent / side / 2).float()[..., None]
    across, down = inside[:, 0], inside[:, 1]
    return crops * (down[:, :, None] & across[:, None])[:, None]


def enlarged(boxes: Tensor, factor: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes (R, 4) around the same centres, within (height, width)."""
    centre, extent = bbox_xyxy_to_cxcywh(boxes).split(2, 1)
    half = extent * (factor[:, None] / 2)
    limit = boxes.new_tensor([size[1], size[0]])
    return torch.cat([(centre - half).clamp(min=0),
                      torch.minimum(centre + half, limit)], 1)
