# Licensed under the Apache License, Version 2.0.
"""Dense features of open_clip's own towers."""
from typing import Sequence

import torch
from open_clip.modified_resnet import AttentionPool2d, ModifiedResNet
from open_clip.transformer import (
    CustomResidualAttentionBlock,
    VisionTransformer,
)
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..maps import aligned_regions
from ..open_clip_blocks import full_attention, run_block, value_path
from .image_tower import (
    EncodedImages,
    TowerReader,
    cells_in_boxes,
    pad_to_multiple,
    resize_positions,
)


class ViTReader(TowerReader):
    r"""Reads a ``VisionTransformer``.

    With ``mode='value'`` the positions leave the last block without attention
    between tokens: :math:`x' = x + \text{proj}(\text{value}(\text{ln}_1(x)))`
    and :math:`x' + \text{mlp}(\text{ln}_2(x'))` (REFERENCE.md, section 4);
    with 'attention' the block is left as it is. With 'masked_pool' the class
    token of the last block attends to itself and the patches of a region's
    box alone; the dense map is then that of 'value'. In every mode the class
    token of a whole image sees full attention.

    Patch dropout is left out: a dense map needs all patches.

    Args:
        visual (VisionTransformer): The tower.
        mode (str): See above.

    Raises:
        ValueError: If the tower pools by learned queries (CoCa), has scaled
            cosine attention or patches that are not square, or for
            'masked_pool' no class token or blocks of another kind.
    """

    def __init__(self, visual: VisionTransformer, mode: str) -> None:
        super().__init__(visual, mode)
        self.blocks = visual.transformer.resblocks
        _check_structure(visual, self.blocks[-1], mode)
        self.stride = visual.patch_size[0]
        self.tap_channels = [visual.transformer.width] * len(self.blocks)
        self.tap_strides = [self.stride] * len(self.blocks)

    def encode(
        self, images: Tensor, taps: Sequence[int] = ()
    ) -> tuple[list[Tensor], EncodedImages]:
        """All blocks but the last; see :class:`TowerReader`.

        Tap i is the map after block i, counted from 0; that after the last
        block is as ``mode`` has it.
        """
        x, grid = self._embed(images)
        maps = {}
        for number, block in enumerate(self.blocks[:-1]):
            x = self._run(block, x)
            if number in taps:
                maps[number] = _as_map(x[:, 1:], grid)
        encoded = EncodedImages(x, grid)
        last = len(self.blocks) - 1
        if last in taps:
            maps[last] = _as_map(self._positions(encoded), grid)
        return [maps[tap] for tap in taps], encoded

    def whole(self, encoded: EncodedImages) -> Tensor:
        """Embeddings (N, D): open_clip's own, at any image size."""
        x = self._run(self.blocks[-1], encoded.features)
        if not self.visual.final_ln_after_pool:
            x = self.visual.ln_post(x)
        average = self.visual.pool_type == 'avg'
        pooled = x[:, 1:].mean(1) if average else x[:, 0]
        if self.visual.final_ln_after_pool:
            pooled = self.visual.ln_post(pooled)
        return self._project(pooled)

    def dense(self, encoded: EncodedImages) -> Tensor:
        """Embeddings (N, D, h, w): final norm and projection of each."""
        x = self.visual.ln_post(self._positions(encoded))
        return _as_map(self._project(x), encoded.grid)

    def regions(self, encoded: EncodedImages, rois: Tensor) -> Tensor:
        """Embeddings (R, D) of regions; see :class:`TowerReader`."""
        if self.mode != 'masked_pool':
            return super().regions(encoded, rois)
        pooled = encoded.features.new_zeros(
            len(rois), encoded.features.shape[-1])
        for number, tokens in enumerate(encoded.features):
            own = (rois[:, 0] == number).nonzero().flatten()
            if len(own):
                inside = cells_in_boxes(rois[own, 1:], encoded.grid,
                                        self.stride)
                found = _pool_by_class_token(self.blocks[-1], tokens, inside)
                pooled = pooled.index_copy(0, own, found.to(pooled))
        return self._project(self.visual.ln_post(pooled))

    def _embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Tokens (N, 1 + h * w, C) that enter the first block, and (h, w)."""
        visual = self.visual
        patches = visual.conv1(pad_to_multiple(images, visual.patch_size))
        grid = tuple(patches.shape[-2:])
        positions = visual.positional_embedding
        resized = resize_positions(positions[1:], visual.grid_size, grid)
        positions = torch.cat([positions[:1], resized])
        patches = patches.flatten(2).transpose(1, 2)
        first = visual.class_embedding.to(patches).expand(len(patches), 1, -1)
        x = torch.cat([first, patches], 1) + positions.to(patches)
        return visual.ln_pre(x), grid

    def _positions(self, encoded: EncodedImages) -> Tensor:
        """Tokens (N, h * w, C) of the positions after the last block."""
        if encoded.positions is None:
            x = encoded.features
            if self.mode == 'attention':
                x = self._run(self.blocks[-1], x)[:, 1:]
            else:
                x = run_block(self.blocks[-1], x[:, 1:], value_path)
            encoded.positions = x
        return encoded.positions

    def _run(self, block: nn.Module, x: Tensor) -> Tensor:
        if self.visual.transformer.grad_checkpointing and \
                torch.is_grad_enabled():
            return checkpoint(
                run_block, block, x, full_attention, use_reentrant=False)
        return run_block(block, x, full_attention)

    def _project(self, x: Tensor) -> Tensor:
        return x if self.visual.proj is None else x @ self.visual.proj


def _pool_by_class_token(block: nn.Module, tokens: Tensor,
                         inside: Tensor) -> Tensor:
    """The last block for the class token, once per region of one image.

    Args:
        block (nn.Module): ``ResidualAttentionBlock``.
        tokens (Tensor): Shape (1 + L, C), the class token first.
        inside (Tensor): Bool (R, L): which patches each region has.

    Returns:
        Tensor: Shape (R, C).
    """
    attn, normed = block.attn, block.ln_1(tokens)
    q, k, v = F.linear(normed,
                       attn.in_proj_weight, attn.in_proj_bias).unflatten(
                           -1, (3, attn.num_heads, -1)).permute(1, 2, 0, 3)
    visible = F.pad(inside, (1, 0), value=True)[None, None]
    query = q[None, :, :1].expand(-1, -1, len(inside), -1)
    pooled = F.scaled_dot_product_attention(query, k[None], v[None], visible)
    pooled = attn.out_proj(pooled[0].transpose(0, 1).flatten(1))
    x = tokens[:1] + block.ls_1(pooled)
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def _as_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tokens (N, h * w, C) as a map (N, C, h, w)."""
    # Not `unflatten`, whose sizes a graph for ONNX takes for constants.
    return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2],
                                          *grid)


def _check_structure(visual: VisionTransformer, block: nn.Module,
                     mode: str) -> None:
    wrong: str | None = None
    custom = isinstance(block, CustomResidualAttentionBlock)
    if visual.attn_pool is not None or visual.pool_type not in ('tok', 'avg'):
        wrong = 'it pools by learned queries (attentional_pool)'
    elif visual.patch_size[0] != visual.patch_size[1]:
        wrong = f'its patches are not square: {visual.patch_size}'
    elif custom and block.attn.logit_scale is not None:
        wrong = 'it has scaled cosine attention'
    elif mode == 'masked_pool' and visual.pool_type != 'tok':
        wrong = "mode='masked_pool' needs a class token that is pooled"
    elif mode == 'masked_pool' and custom:
        wrong = "mode='masked_pool' needs plain attention blocks"
    if wrong is not None:
        raise ValueError(
            f'no dense features of this VisionTransformer: {wrong}')


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
    ) -> tuple[list[Tensor], EncodedImages]:
        """The four stages; see :class:`TowerReader`. Tap i is stage i."""
        visual = self.visual
        x = visual.stem(pad_to_multiple(images, (STRIDE, STRIDE)))
        stages = visual.layer1, visual.layer2, visual.layer3, visual.layer4
        maps = []
        for stage in stages:
            x = stage(x)
            maps.append(x)
        encoded = EncodedImages(x, tuple(x.shape[-2:]))
        return [maps[tap] for tap in taps], encoded

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
    def _native_grid(self) -> tuple[int, int]:
        side = round((len(self.visual.attnpool.positional_embedding) - 1)**.5)
        return side, side

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        """Positional embeddings (1 + h * w, C) of the pool for a grid."""
        positions = self.visual.attnpool.positional_embedding
        resized = resize_positions(positions[1:], self._native_grid, grid)
        return torch.cat([positions[:1], resized])

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
    q = _heads(attnpool, attnpool.q_proj(queries))
    k = _heads(attnpool, attnpool.k_proj(keys))
    v = _heads(attnpool, attnpool.v_proj(keys))
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
    q = _heads(attnpool, attnpool.q_proj(means))
    own_k = _heads(attnpool, attnpool.k_proj(means))
    own_v = _heads(attnpool, attnpool.v_proj(means))
    k = _heads(attnpool, attnpool.k_proj(cells))
    v = _heads(attnpool, attnpool.v_proj(cells))
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
