# Licensed under the Apache License, Version 2.0.
"""Dense features of open_clip's ResNet with an attention pool."""
from typing import List, Sequence, Tuple

import torch
from open_clip.modified_resnet import AttentionPool2d, ModifiedResNet
from torch import Tensor
from torch.nn import functional as F

from mmdet_clim.models.aligned_regions import aligned_regions

from .tower_reader import (
    EncodedImages,
    TowerReader,
    cells_in_boxes,
    pad_to_multiple,
    resize_positions,
)

STRIDE = 32
#: A region of RN50x64 takes 3 MB before it is pooled.
REGIONS_AT_ONCE = 256


class ResNetReader(TowerReader):
    """Reads a ``ModifiedResNet``.

    A region's part of the last map is RoIAligned to the grid that the
    attention pool was made for, and pooled by it (REFERENCE.md, section 4);
    with ``mode='masked_pool'`` the pool works on the whole map, and the
    region's query and keys are the cells of its box. A position of the dense
    map is the value path of the pool; with 'attention' it is the pool's
    output for the position as the query.

    Args:
        visual (ModifiedResNet): The tower.
        mode (str): See above.
    """

    stride = STRIDE
    tap_strides = (4, 8, 16, 32)

    def __init__(self, visual: ModifiedResNet, mode: str) -> None:
        super().__init__(visual, mode)
        last = visual.attnpool.v_proj.in_features
        self.tap_channels = (last // 8, last // 4, last // 2, last)

    def encode(
        self, images: Tensor, taps: Sequence[int] = ()
    ) -> Tuple[List[Tensor], EncodedImages]:
        """The four stages; see :class:`TowerReader`. Tap i is stage i."""
        visual = self.visual
        x = visual.stem(pad_to_multiple(images, (STRIDE, STRIDE)))
        maps = []
        for stage in (visual.layer1, visual.layer2, visual.layer3,
                      visual.layer4):
            x = stage(x)
            maps.append(x)
        return [maps[tap]
                for tap in taps], EncodedImages(x, tuple(x.shape[-2:]))

    def whole(self, encoded: EncodedImages) -> Tensor:
        """Embeddings (N, D): open_clip's own, at any image size."""
        tokens = self._tokens(encoded.features)
        return pool(self.visual.attnpool, tokens[:, :1], tokens)[:, 0]

    def dense(self, encoded: EncodedImages) -> Tensor:
        """Embeddings (N, D, h, w) of all positions."""
        attnpool, tokens = self.visual.attnpool, self._tokens(encoded.features)
        if self.mode == 'attention':
            x = pool(attnpool, tokens[:, 1:], tokens)
        else:
            x = attnpool.c_proj(attnpool.v_proj(tokens[:, 1:]))
        return x.transpose(1, 2).unflatten(2, encoded.grid)

    def regions(self, encoded: EncodedImages, rois: Tensor) -> Tensor:
        """Embeddings (R, D) of regions; see :class:`TowerReader`."""
        if self.mode == 'masked_pool':
            return self._masked(encoded, rois)
        maps = encoded.features.float().contiguous()
        return torch.cat([
            self.visual.attnpool(
                aligned_regions(maps, part, self._native_grid, STRIDE))
            for part in rois.split(REGIONS_AT_ONCE)
        ])

    def _masked(self, encoded: EncodedImages, rois: Tensor) -> Tensor:
        """As if the map were the box's cells alone, with their positions."""
        attnpool = self.visual.attnpool
        positions = self._positions(encoded.grid)
        found = []
        for number, cells in enumerate(
                encoded.features.flatten(2).transpose(1, 2)):
            own = rois[:, 0] == number
            inside = cells_in_boxes(rois[own, 1:], encoded.grid, STRIDE)
            share = inside.to(cells) / inside.sum(1, keepdim=True)
            mean = share @ cells + positions[0]
            found.append(
                pool_cells(attnpool, mean, cells + positions[1:], inside))
        order = torch.argsort(rois[:, 0], stable=True)
        return torch.cat(found)[torch.argsort(order)]

    @property
    def _native_grid(self) -> Tuple[int, int]:
        side = round((len(self.visual.attnpool.positional_embedding) - 1)**.5)
        return side, side

    def _positions(self, grid: Tuple[int, int]) -> Tensor:
        """Positional embeddings (1 + h * w, C) of the pool for a grid."""
        positions = self.visual.attnpool.positional_embedding
        return torch.cat([
            positions[:1],
            resize_positions(positions[1:], self._native_grid, grid)
        ])

    def _tokens(self, maps: Tensor) -> Tensor:
        """What the attention pool sees (N, 1 + h * w, C), the mean first."""
        cells = maps.flatten(2).transpose(1, 2)
        tokens = torch.cat([cells.mean(1, keepdim=True), cells], 1)
        return tokens + self._positions(tuple(maps.shape[-2:])).to(tokens)


def pool(attnpool: AttentionPool2d, queries: Tensor, keys: Tensor) -> Tensor:
    """The attention pool's output (N, Q, D) for other queries.

    Args:
        attnpool (AttentionPool2d): The pool.
        queries (Tensor): Shape (N, Q, C), with positional embeddings.
        keys (Tensor): Shape (N, L, C), with positional embeddings.
    """
    q, k, v = (_heads(attnpool, projection(x))
               for projection, x in ((attnpool.q_proj, queries),
                                     (attnpool.k_proj, keys), (attnpool.v_proj,
                                                               keys)))
    mixed = F.scaled_dot_product_attention(q, k, v)
    return attnpool.c_proj(mixed.transpose(1, 2).flatten(2))


def pool_cells(attnpool: AttentionPool2d, means: Tensor, cells: Tensor,
               inside: Tensor) -> Tensor:
    """Pool several sets of one map's cells.

    The keys of a set are its mean, which is the query too, and its cells.
    Cells are projected once, however many sets they are in.

    Args:
        attnpool (AttentionPool2d): The pool.
        means (Tensor): Shape (R, C), the mean of each set.
        cells (Tensor): Shape (L, C).
        inside (Tensor): Bool (R, L): the cells of each set.

    Returns:
        Tensor: Shape (R, D).
    """
    q, own_k, own_v = (
        _heads(attnpool, projection(means))
        for projection in (attnpool.q_proj, attnpool.k_proj, attnpool.v_proj))
    k, v = (
        _heads(attnpool, projection(cells))
        for projection in (attnpool.k_proj, attnpool.v_proj))
    scale = q.shape[-1]**-.5
    to_cells = (q @ k.transpose(1, 2) * scale).masked_fill(
        ~inside, float('-inf'))
    to_mean = (q * own_k).sum(-1, keepdim=True) * scale
    weights = torch.cat([to_cells, to_mean], -1).softmax(-1)
    mixed = weights[..., :-1] @ v + weights[..., -1:] * own_v
    return attnpool.c_proj(mixed.transpose(0, 1).flatten(1))


def _heads(attnpool: AttentionPool2d, x: Tensor) -> Tensor:
    """Tokens (..., L, C) as (..., heads, L, C / heads)."""
    return x.unflatten(-1, (attnpool.num_heads, -1)).transpose(-3, -2)
