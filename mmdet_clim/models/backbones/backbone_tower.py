# Licensed under the Apache License, Version 2.0.
"""An image tower of a frozen backbone and a small head."""
from typing import Mapping, Sequence

import torch
from torch import Tensor, nn

from mmdet_clim.registry import MODELS

from ..maps import aligned_regions, resized_map
from .image_tower import (
    EncodedImages,
    ImageTower,
    TowerReader,
    pad_to_multiple,
)

#: Of the head's weights in a checkpoint of ``CLIMOnCLIP``.
HEAD_PREFIX = 'image_tower.visual.'


class EmbeddingHead(nn.Module):
    """From features of several maps to a joint image-text space.

    Each map's channels are normalised for themselves; then two layers.

    Args:
        channels (Sequence[int]): Channels C of each map.
        hidden (int): Width of the hidden layer.
        embed_dim (int): Width D of the space.
        dropout (float): Of the hidden layer.
        image_size (int): See :class:`BackboneTower`.

    Shape:
        - (..., sum of C) to (..., D).
    """

    def __init__(self, channels: Sequence[int], hidden: int, embed_dim: int,
                 dropout: float, image_size: int) -> None:
        super().__init__()
        self.image_size = image_size
        self.channels = list(channels)
        self.norms = nn.ModuleList(nn.LayerNorm(c) for c in channels)
        self.layers = nn.Sequential(
            nn.Linear(sum(channels), hidden), nn.GELU(), nn.Dropout(dropout),
            nn.Linear(hidden, embed_dim))

    def forward(self, features: Tensor) -> Tensor:
        """Features of positions or regions to embeddings of any norm."""
        parts = features.split(self.channels, dim=-1)
        return self.layers(
            torch.cat([norm(x) for norm, x in zip(self.norms, parts)], -1))


class FusedMapReader(TowerReader):
    """Reads all maps of a backbone at once, resized to the stride of one.

    What is read, a position, a region's mean or the whole image's, then goes
    through the head. So a region costs no more than RoIAlign and two layers.

    Args:
        backbone (nn.Module): With ``strides`` and ``out_channels``.
        visual (EmbeddingHead): The head.
        level (int): Whose stride the fused map has.
    """

    def __init__(self, backbone: nn.Module, visual: EmbeddingHead,
                 level: int) -> None:
        super().__init__(visual, 'value')
        self.backbone = backbone
        self.level = level
        self.tap_channels = backbone.out_channels
        self.tap_strides = backbone.strides
        self.stride = backbone.strides[level]

    def encode(
        self, images: Tensor, taps: Sequence[int] = ()
    ) -> tuple[list[Tensor], EncodedImages]:
        """The backbone, then the fused map; see :class:`TowerReader`."""
        side = max(self.tap_strides)
        maps = self.backbone(pad_to_multiple(images, (side, side)))
        grid = tuple(maps[self.level].shape[-2:])
        fused = torch.cat([resized_map(m, grid) for m in maps], 1)
        return [maps[tap] for tap in taps], EncodedImages(fused, grid)

    def whole(self, encoded: EncodedImages) -> Tensor:
        """Embeddings (N, D) of the mean over all positions."""
        return self.visual(encoded.features.mean((2, 3)))

    def dense(self, encoded: EncodedImages) -> Tensor:
        """Embeddings (N, D, h, w) of all positions."""
        return self.visual(encoded.features.movedim(1, -1)).movedim(-1, 1)

    def regions(self, encoded: EncodedImages, rois: Tensor) -> Tensor:
        """Embeddings (R, D) of the mean over each region."""
        pooled = aligned_regions(encoded.features, rois, stride=self.stride)
        return self.visual(pooled.flatten(1))


@MODELS.register_module()
class BackboneTower(ImageTower):
    """The image tower of a CLIP whose backbone is frozen.

    For ``CLIMOnCLIP`` on a laptop: any backbone with ``strides``,
    ``out_channels``, ``mean`` and ``std``, such as a frozen
    :class:`TimmBackbone` with ImageNet's weights, whose maps may be kept on
    the disk; and a head of two layers, which is all that is trained, into the
    space of a text encoder. Then ``unlocked_blocks='all'`` means the head.

    Args:
        backbone (dict): Config of the backbone.
        embed_dim (int): Width D of the text encoder's embeddings.
        level (int): Which map of the backbone has the stride that all are
            resized to.
        hidden (int): Width of the head's hidden layer.
        dropout (float): Of the hidden layer.
        image_size (int): Side in pixels of the squares that crops of regions
            are resized to, where an objective looks at crops.
        pretrained (str, optional): A checkpoint of a ``CLIMOnCLIP`` with such
            a tower, from which the head begins. None: random weights.

    Raises:
        ValueError: If the checkpoint holds no such head.
    """

    def __init__(self,
                 backbone: dict,
                 embed_dim: int,
                 level: int = 1,
                 hidden: int = 512,
                 dropout: float = 0.1,
                 image_size: int = 128,
                 pretrained: str | None = None) -> None:
        super().__init__()
        self.backbone = MODELS.build(backbone)
        self.backbone.requires_grad_(False)
        self.mean, self.std = self.backbone.mean, self.backbone.std
        self.embed_dim = embed_dim
        self.visual = EmbeddingHead(self.backbone.out_channels, hidden,
                                    embed_dim, dropout, image_size)
        self._reader = FusedMapReader(self.backbone, self.visual, level)
        if pretrained is not None:
            self._begin_with(pretrained)

    def train(self, mode: bool = True) -> 'BackboneTower':
        """Set the mode of the head; the backbone stays as it is."""
        super().train(mode)
        self.backbone.eval()
        return self

    def _begin_with(self, checkpoint: str) -> None:
        # The engine knows the models, and is imported after them.
        from mmdet_clim.engine.checkpoints import load_weights, read_checkpoint
        held = read_checkpoint(checkpoint)
        held = held.get('state_dict', held)
        head: Mapping[str, Tensor] = {
            name[len(HEAD_PREFIX):]: value
            for name, value in held.items() if name.startswith(HEAD_PREFIX)
        }
        if not head:
            raise ValueError(
                f'pretrained={checkpoint!r}: expected weights of a '
                f'CLIMOnCLIP, {HEAD_PREFIX}*, got {list(held)[:3]}')
        load_weights(self.visual, head, checkpoint)
