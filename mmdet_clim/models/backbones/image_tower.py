# Licensed under the Apache License, Version 2.0.
"""What an image tower is asked for, and what reads each kind of it."""
from abc import ABCMeta, abstractmethod
from dataclasses import dataclass
from typing import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..maps import aligned_regions

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
    grid: tuple[int, int]
    positions: Tensor | None = None

    def split(self, counts: Sequence[int]) -> list['EncodedImages']:
        """So many of the images each.

        Args:
            counts (Sequence[int]): N in all.
        """
        positions = [None] * len(counts) if self.positions is None else \
            self.positions.split(counts)
        parts = zip(self.features.split(counts), positions)
        return [EncodedImages(part, self.grid, own) for part, own in parts]


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
    ) -> tuple[list[Tensor], EncodedImages]:
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


def resize_positions(embedding: Tensor, old: tuple[int, int],
                     new: tuple[int, int]) -> Tensor:
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


def _resize_by_matrices(embedding: Tensor, old: tuple[int, int],
                        new: tuple[Tensor, Tensor]) -> Tensor:
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


def cells_in_boxes(boxes: Tensor, grid: tuple[int, int],
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


class ImageTower(nn.Module, metaclass=ABCMeta):
    """Embeddings of images, of their positions and of their regions.

    A subclass sets the attributes.

    Attributes:
        visual (nn.Module): What may be trained of the tower; its parameters
            are those of this module.
        embed_dim (int): Width D of the joint image-text space.
        mean, std (tuple[float]): By which RGB values in [0, 1] are to be
            normalised.
    """

    visual: nn.Module
    embed_dim: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    _reader: TowerReader

    @property
    def native_size(self) -> int:
        """Side in pixels of the square images that it was trained on."""
        size = self.visual.image_size
        return size if isinstance(size, int) else int(size[0])

    @property
    def stride(self) -> int:
        """Pixels per position of the dense features."""
        return self._reader.stride

    @property
    def num_taps(self) -> int:
        """How many intermediate maps :meth:`encode` can give."""
        return len(self._reader.tap_strides)

    @property
    def tap_channels(self) -> Sequence[int]:
        """Channels of each intermediate map."""
        return self._reader.tap_channels

    @property
    def tap_strides(self) -> Sequence[int]:
        """Pixels per position of each intermediate map."""
        return self._reader.tap_strides

    def encode(
        self, images: Tensor, taps: Sequence[int] = ()
    ) -> tuple[list[Tensor], EncodedImages]:
        """Run the tower once, for several of the methods below.

        Args:
            images (Tensor): Shape (N, 3, H, W), RGB, normalised.
            taps (Sequence[int]): Which intermediate maps are wanted: after
                which transformer block, or of which stage, counted from 0.

        Returns:
            tuple[list[Tensor], EncodedImages]: The maps (N, C, h, w) in that
            order, and what ``*_of`` methods read.
        """
        return self._reader.encode(images, taps)

    def image_embeddings_of(self, encoded: EncodedImages) -> Tensor:
        """Unit vectors (N, D) of whole images."""
        return unit(self._reader.whole(encoded))

    def dense_features_of(self, encoded: EncodedImages) -> Tensor:
        """Unit vectors (N, D, h, w) of all positions."""
        return unit(self._reader.dense(encoded))

    def region_features_of(self, encoded: EncodedImages,
                           rois: Tensor) -> Tensor:
        """Unit vectors (R, D) of regions.

        Args:
            encoded (EncodedImages): N images.
            rois (Tensor): Shape (R, 5): index of the image, then absolute
                xyxy pixels of the tower's input. Without regions, the result
                is empty and connected to the graph.
        """
        if len(rois) == 0:
            zero = encoded.features.float().sum() * 0
            return zero + zero.new_zeros(0, self.embed_dim)
        return unit(self._reader.regions(encoded, rois))

    def encode_image(self, images: Tensor) -> Tensor:
        """Unit vectors (N, D) of whole images of any size (N, 3, H, W)."""
        return self.image_embeddings_of(self.encode(images)[1])

    def dense_features(self, images: Tensor) -> Tensor:
        """Unit vectors (N, D, h, w) of images (N, 3, H, W)."""
        return self.dense_features_of(self.encode(images)[1])

    def region_features(self, images: Tensor, rois: Tensor) -> Tensor:
        """Unit vectors (R, D) of regions (R, 5) of images (N, 3, H, W)."""
        return self.region_features_of(self.encode(images)[1], rois)

    def forward(self, images: Tensor) -> Tensor:
        """The same as :meth:`dense_features`."""
        return self.dense_features(images)
