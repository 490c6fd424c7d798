# Licensed under the Apache License, Version 2.0.
"""Regions as means of their patches, weighted by a text."""
import torch
import torch.nn.functional as F
from torch import Tensor

from ..backbones.image_tower import cells_in_boxes


def text_weighted(dense: Tensor, rois: Tensor, stride: int, texts: Tensor,
                  sharpness: float) -> Tensor:
    r"""Patches that resemble the region's own text weigh more.

    With the unit vectors :math:`x_p` of the patches of a region and
    :math:`t` of its text,

    .. math:: r = \sum_p w_p x_p, \quad
        w = \operatorname{softmax}_p(\beta\, x_p \cdot t)

    The weights have no gradient.

    Args:
        dense (Tensor): (N, D, h, w) unit vectors.
        rois (Tensor): (R, 5): the image's number, absolute xyxy pixels.
        stride (int): Pixels per patch.
        texts (Tensor): (R, D) unit vectors, of each region its own.
        sharpness (float): :math:`\beta`.

    Returns:
        Tensor: (R, D) unit vectors.
    """
    inside = cells_in_boxes(rois[:, 1:], dense.shape[-2:], stride)
    own = F.one_hot(rois[:, 0].long(), len(dense)).bool()
    visible = (own[:, :, None] & inside[:, None]).flatten(1)
    with torch.autocast(dense.device.type, enabled=False):
        patches = dense.float().permute(0, 2, 3, 1).flatten(0, 2)
        cosines = (texts.float() @ patches.t()).detach()
        weights = (sharpness * cosines).masked_fill(~visible, -torch.inf)
        return F.normalize(weights.softmax(1) @ patches, dim=1)
