# Licensed under the Apache License, Version 2.0.
"""What the readers of all image towers share."""
from abc import ABCMeta, abstractmethod
from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmdet_clim.models.aligned_regions import aligned_regions

MODES = ('value', 'attention', 'masked_pool')

#: Positions along a side of an exported tower's input, at most.
MAX_POSITIONS = 128


@dataclass
class EncodedImages:
    """Images before the last step of a tower, from which all is read.

    Attributes:
        features (Tensor): Of a transformer, the tokens (N, L, C) that enter
            its last block; of a convolutional tower, its last map
            (N, C, h, w).
        grid (tuple[int, int]): Rows h and columns w of the dense map.
        positions (Tensor, optional): Of a transformer, the tokens
            (N, h * w, C) of the positions after its last block, once they
            are known.
    """

    features: Tensor
    grid: Tuple[int, int]
    positions: Optional[Tensor] = None

    def split(self, counts: Sequence[int]) -> List['EncodedImages']:
        """So many of the images each.

        Args:
            counts (Sequence[int]): N in all.
        """
        positions = [None] * len(counts) if self.positions is None else \
            self.positions.split(counts)
        return [
            EncodedImages(features, self.grid, of_part)
            for features, of_part in zip(
                self.features.split(counts), positions)
        ]


class TowerReader(metaclass=ABCMeta):
    """Reads global, dense and region features from one kind of tower.

    A reader has no parameters: it runs the modules of an open_clip tower in
    another order.

    Args:
        visual (nn.Module): The tower.
        mode (str): 'value', 'attention' or 'masked_pool'.

    Attributes:
        stride (int): Pixels from one position of the dense map to the next.
        tap_channels (Sequence[int]): Channels of each intermediate map.
        tap_strides (Sequence[int]): Pixels per position of each.
    """

    stride: int
    tap_channels: Sequence[int]
    tap_strides: Sequence[int]

    def __init__(self, visual: nn.Module, mode: str) -> None:
        self.visual = visual
        self.mode = mode

    @abstractmethod
    def encode(
        self, images: Tensor, taps: Sequence[int] = ()
    ) -> Tuple[List[Tensor], EncodedImages]:
        """Run all of the tower but its last step.

        Args:
            images (Tensor): Shape (N, 3, H, W), normalised.
            taps (Sequence[int]): Which intermediate maps are wanted.

        Returns:
            tuple[list[Tensor], EncodedImages]: Those maps (N, C, h, w) in the
            order asked for, and what the other methods read.
        """

    @abstractmethod
    def whole(self, encoded: EncodedImages) -> Tensor:
        """Embeddings (N, D) of whole images, of any norm."""

    @abstractmethod
    def dense(self, encoded: EncodedImages) -> Tensor:
        """Embeddings (N, D, h, w) of all positions, of any norm."""

    def regions(self, encoded: EncodedImages, rois: Tensor) -> Tensor:
        """Embeddings (R, D) of regions, of any norm.

        RoIAlign to 1x1 on the dense map of unit vectors, aligned
        (REFERENCE.md, section 4).

        Args:
            encoded (EncodedImages): The images.
            rois (Tensor): Shape (R, 5), R > 0: image index, then absolute
                xyxy pixels.
        """
        return aligned_regions(
            unit(self.dense(encoded)), rois, stride=self.stride).flatten(1)


def unit(vectors: Tensor) -> Tensor:
    """Unit vectors along dimension 1, in float32 also under autocast."""
    with torch.autocast(vectors.device.type, enabled=False):
        return F.normalize(vectors.float(), dim=1)


def pad_to_multiple(images: Tensor, size: Sequence[int]) -> Tensor:
    """Pad below and at the right until a patch of (h, w) pixels fits.

    The padding is 0, the mean colour of normalised images.
    """
    bottom = -images.shape[-2] % size[0]
    right = -images.shape[-1] % size[1]
    return F.pad(images, (0, right, 0, bottom)) if bottom or right else images


def resize_positions(embedding: Tensor, old: Tuple[int, int],
                     new: Tuple[int, int]) -> Tensor:
    """Resize positional embeddings bicubically, without antialiasing.

    As the published models do (REFERENCE.md, section 4). open_clip, which
    resizes them once where it loads a checkpoint, does it with antialiasing.

    Args:
        embedding (Tensor): Shape (old_h * old_w, C).
        old (tuple[int, int]): Rows and columns that they are for.
        new (tuple[int, int]): Rows and columns wanted.

    Returns:
        Tensor: Shape (new_h * new_w, C); the same tensor if nothing changes.
    """
    if torch.onnx.is_in_onnx_export():
        return _resize_by_matrices(embedding, old, new)
    if tuple(old) == tuple(new):
        return embedding
    with torch.autocast(embedding.device.type, enabled=False):
        grid = embedding.float().t().unflatten(1, tuple(old))[None]
        grid = F.interpolate(grid, new, mode='bicubic')
    return grid[0].flatten(1).t().to(embedding)


def _resize_by_matrices(embedding: Tensor, old: Tuple[int, int],
                        new: Tuple[Tensor, Tensor]) -> Tensor:
    """The same for a graph, which learns the new size when it runs."""
    rows, columns = (_resize_matrices(before)[after - 1][:after]
                     for before, after in zip(old, new))
    grid = embedding.float().unflatten(0, tuple(old))
    resized = torch.einsum('ih,hwc,jw->ijc', rows, grid, columns)
    return resized.flatten(0, 1).to(embedding)


def _resize_matrices(old: int) -> Tensor:
    """How an axis of ``old`` positions is resized to any other number.

    Returns:
        Tensor: Shape (MAX_POSITIONS, MAX_POSITIONS, old): for n positions,
        the first n rows of number n - 1.
    """
    identity = torch.eye(old)[None, None]
    return torch.stack([
        F.pad(
            F.interpolate(identity, (new, old), mode='bicubic')[0, 0],
            (0, 0, 0, MAX_POSITIONS - new))
        for new in range(1, MAX_POSITIONS + 1)
    ])


def cells_in_boxes(boxes: Tensor, grid: Tuple[int, int],
                   stride: int) -> Tensor:
    """Which cells of a grid have their centre in a box.

    Args:
        boxes (Tensor): Shape (R, 4), absolute xyxy pixels.
        grid (tuple[int, int]): Rows h and columns w.
        stride (int): Pixels per cell.

    Returns:
        Tensor: Bool (R, h * w); at least one cell per box, the nearest one
        where a box holds no centre.
    """
    inside = []
    for low, high, count in ((boxes[:, 1], boxes[:, 3], grid[0]),
                             (boxes[:, 0], boxes[:, 2], grid[1])):
        first = (low / stride - .5).ceil().clamp(0, count - 1)
        end = ((high / stride + .5).floor()).clamp(max=count)
        end = torch.maximum(end, first + 1)
        cells = torch.arange(count, device=boxes.device)
        inside.append((cells >= first[:, None]) & (cells < end[:, None]))
    rows, columns = inside
    return (rows[:, :, None] & columns[:, None]).flatten(1)
