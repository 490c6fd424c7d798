# Licensed under the Apache License, Version 2.0.
"""What an image tower is asked for, whatever it is made of."""
from abc import ABCMeta
from typing import List, Sequence, Tuple

import torch
from torch import Tensor, nn

from mmdet_clim.models.modes import evaluating

from .tower_reader import EncodedImages, TowerReader, unit


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
    mean: Tuple[float, ...]
    std: Tuple[float, ...]
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
    ) -> Tuple[List[Tensor], EncodedImages]:
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


@torch.no_grad()
def width_of(tower: ImageTower) -> int:
    """D, by asking the tower."""
    images = torch.zeros(1, 3, tower.stride, tower.stride)
    with evaluating(tower):
        return tower.encode_image(images).shape[1]
