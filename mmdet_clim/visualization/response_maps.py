# Licensed under the Apache License, Version 2.0.
"""Where in an image a detector or a CLIP answers to a text."""
from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdet_clim.models.region_readers import BaseRegionReader, ExtractedImages

#: Sides of the windows that a detector reads, as shares of the image's.
WINDOW_SIDES = (0.15, 0.3)
#: Windows along the longer side of an image.
WINDOWS_PER_SIDE = 24


@torch.no_grad()
def detector_responses(detector: nn.Module,
                       reader: BaseRegionReader,
                       feats: ExtractedImages,
                       size: tuple[int, int],
                       texts: Tensor,
                       window_sides: Sequence[float] = WINDOW_SIDES) -> Tensor:
    """Cosine of texts and of what a detector reads around each position.

    A square window slides over the image; its embedding is the detector's
    own, by its region reader, so that the map shows what a box there would be
    classified by. Windows of several sizes are averaged.

    Args:
        detector (nn.Module): In evaluation mode.
        reader (BaseRegionReader): That reads it.
        feats (ExtractedImages): What the reader's ``extract_feat`` gave of
            one image.
        size (tuple[int, int]): H and W of that image, in pixels, as the
            detector takes it.
        texts (Tensor): Unit vectors (T, D).
        window_sides (Sequence[float]): Sides of the windows as shares of the
            longer side of the image.

    Returns:
        Tensor: Shape (T, H, W), cosines from -1 to 1.
    """
    height, width = size
    longer = max(height, width)
    step = longer / WINDOWS_PER_SIDE
    read = reader.stages(detector, feats)[-1].read_as_text
    maps = []
    for side in window_sides:
        boxes, shape = _windows(height, width, side * longer, step)
        boxes = boxes.to(texts.device)
        rois = torch.cat([boxes.new_zeros(len(boxes), 1), boxes], 1)
        regions = F.normalize(read(rois).float(), dim=1)
        maps.append(_enlarge(regions @ texts.t(), shape, (height, width)))
    return torch.stack(maps).mean(0)


@torch.no_grad()
def tower_responses(dense: Tensor, size: tuple[int, int],
                    texts: Tensor) -> Tensor:
    """Cosine of texts and of CLIP's dense features.

    Args:
        dense (Tensor): Unit vectors (D, h, w) of all positions of an image.
        size (tuple[int, int]): H and W of that image in pixels.
        texts (Tensor): Unit vectors (T, D).

    Returns:
        Tensor: Shape (T, H, W), cosines from -1 to 1.
    """
    values = dense.flatten(1).t().float() @ texts.t()
    return _enlarge(values, tuple(dense.shape[1:]), size)


def draw_responses(image: np.ndarray, responses: Tensor,
                   limits: tuple[float, float]) -> list[np.ndarray]:
    """Lay each map over the image, cold to hot.

    Args:
        image (np.ndarray): uint8, shape (h, w, 3), RGB, of any size.
        responses (Tensor): Shape (T, H, W).
        limits (tuple[float, float]): The values of the coldest and of the
            hottest colour; the same for maps that are to be compared.

    Returns:
        list[np.ndarray]: T pictures, uint8, shape (h, w, 3), RGB.
    """
    low, high = limits
    pictures = []
    for values in responses.cpu().numpy():
        values = cv2.resize(values, image.shape[1::-1])
        share = np.clip((values - low) / max(high - low, 1e-6), 0, 1)
        heat = cv2.applyColorMap(np.uint8(share * 255),
                                 cv2.COLORMAP_TURBO)[..., ::-1]
        pictures.append(np.uint8(.4 * image + .6 * heat))
    return pictures


def response_rows(image: np.ndarray,
                  responses: Sequence[Tensor]) -> list[list[np.ndarray]]:
    """Lay maps of several models over an image, a row per model.

    Args:
        image (np.ndarray): uint8, shape (h, w, 3), RGB.
        responses (Sequence[Tensor]): Of each model, (T, H, W) with H >= h and
            W >= w: what lies beyond the image is padding.

    Returns:
        list[list[np.ndarray]]: Of each model T pictures as
        :func:`draw_responses` makes them; the models share the scale of a
        text.
    """
    height, width = image.shape[:2]
    # What the padding answers is not shown.
    maps = [of_model[:, :height, :width].cpu() for of_model in responses]
    columns = []
    for index in range(len(maps[0])):
        of_text = torch.stack([of_model[index] for of_model in maps])
        limits = (of_text.min().item(), of_text.max().item())
        columns.append(draw_responses(image, of_text, limits))
    return [list(row) for row in zip(*columns)]


def _windows(height: int, width: int, side: float,
             step: float) -> tuple[Tensor, tuple[int, int]]:
    """Square windows (rows * cols, 4) around a grid of centres, clipped."""
    rows, cols = (max(1, round(size / step)) for size in (height, width))
    ys = (torch.arange(rows) + .5) * height / rows
    xs = (torch.arange(cols) + .5) * width / cols
    y, x = torch.meshgrid(ys, xs, indexing='ij')
    centres = torch.stack([x, y], -1).view(-1, 2)
    boxes = torch.cat([centres - side / 2, centres + side / 2], 1)
    limit = boxes.new_tensor([width, height, width, height])
    return torch.minimum(boxes.clamp(min=0), limit), (rows, cols)


def _enlarge(values: Tensor, shape: tuple[int, int],
             size: tuple[int, int]) -> Tensor:
    """Values (h * w, T) of a grid to maps (T, H, W)."""
    maps = values.t().unflatten(1, shape)
    return F.interpolate(maps[None], size, mode='bilinear')[0]
