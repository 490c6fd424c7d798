# Licensed under the Apache License, Version 2.0.
"""Dense features of towers that open_clip has from timm."""
from typing import Sequence, cast

from open_clip.timm_model import TimmModel
from timm.layers import Format, PatchDropout, PatchEmbed
from timm.models.convnext import ConvNeXt
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from .image_tower import EncodedImages, TowerReader, pad_to_multiple


class TimmReader(TowerReader):
    """What both readers share: the tower's own head.

    Args:
        visual (TimmModel): The tower.
        mode (str): 'value' or 'attention'.

    Raises:
        ValueError: For ``mode='masked_pool'``.
    """

    def __init__(self, visual: TimmModel, mode: str) -> None:
        super().__init__(visual, mode)
        if mode == 'masked_pool':
            raise ValueError(
                "mode='masked_pool' is for open_clip's own VisionTransformer "
                'and ModifiedResNet, not for a '
                f'{type(visual.trunk).__name__} of timm')

    def whole(self, encoded: EncodedImages) -> Tensor:
        """Embeddings (N, D): open_clip's own, at any image size."""
        return self._head(encoded.features)

    def _head(self, features: Tensor) -> Tensor:
        return self.visual.head(self.visual.trunk.forward_head(features))


class TimmViTReader(TimmReader):
    """Reads a timm vision transformer: ViT, SigLIP, EVA.

    With ``mode='value'`` the last block sees each position as a sequence of
    its own, which leaves the value path of its attention whatever the block
    is made of; with 'attention' it is left as it is. The head, with SigLIP's
    attention pool, then sees each position as an image of its own.

    The trunk is set to take images of any size; what it computes at its own
    size stays the same.

    Args:
        visual (TimmModel): The tower.
        mode (str): See above.

    Raises:
        ValueError: If the trunk drops patches or embeds them by more than
            one layer, or for ``mode='masked_pool'``.
    """

    def __init__(self, visual: TimmModel, mode: str) -> None:
        super().__init__(visual, mode)
        trunk = visual.trunk
        if not isinstance(trunk.patch_embed, PatchEmbed):
            raise ValueError(
                'no dense features of this timm tower: patch_embed is a '
                f'{type(trunk.patch_embed).__name__}, expected a PatchEmbed')
        if isinstance(trunk.patch_drop, PatchDropout):
            raise ValueError('no dense features of a timm tower with '
                             'patch_dropout: set it to 0')
        trunk.dynamic_img_size = True
        trunk.patch_embed.strict_img_size = False
        trunk.patch_embed.flatten = False
        trunk.patch_embed.output_fmt = Format.NHWC
        self.patch_size = trunk.patch_embed.patch_size
        self.stride = self.patch_size[0]
        self.tap_channels = [trunk.embed_dim] * len(trunk.blocks)
        self.tap_strides = [self.stride] * len(trunk.blocks)

    def encode(
        self, images: Tensor, taps: Sequence[int] = ()
    ) -> tuple[list[Tensor], EncodedImages]:
        """All blocks; see :class:`TowerReader`.

        Tap i is the map after block i, counted from 0, the last one with full
        attention.
        """
        images = pad_to_multiple(images, self.patch_size)
        grid = tuple(side // self.stride for side in images.shape[-2:])
        before = len(self.visual.trunk.blocks) - 2
        wanted = sorted({*taps, before})
        self._set_rope(grid)
        tokens, maps = self.visual.trunk.forward_intermediates(
            images, indices=wanted)
        self._set_rope(self.visual.trunk.patch_embed.grid_size)
        maps = dict(zip(wanted, maps))
        encoded = EncodedImages(tokens, grid)
        if self.mode == 'value':
            x = maps[before].flatten(2).transpose(1, 2)
            x = self.visual.trunk.blocks[-1](x.flatten(0, 1)[:, None])
            x = self.visual.trunk.norm(x).unflatten(0, (len(images), -1))
            encoded.positions = x[:, :, 0]
        else:
            prefix = self.visual.trunk.num_prefix_tokens
            encoded.positions = tokens[:, prefix:]
        return [maps[tap] for tap in taps], encoded

    def dense(self, encoded: EncodedImages) -> Tensor:
        """Embeddings (N, D, h, w): the head applied to each position."""
        positions = cast(Tensor, encoded.positions)
        # As often as there are class and register tokens, which some heads
        # take and others leave out.
        repeated = positions.flatten(0, 1)[:, None].expand(
            -1, 1 + self.visual.trunk.num_prefix_tokens, -1)
        x = self._head(repeated).unflatten(0, (len(positions), -1))
        return x.transpose(1, 2).unflatten(2, encoded.grid)

    def _set_rope(self, grid: tuple[int, int]) -> None:
        """Rotary embeddings of EVA, which it keeps for one grid."""
        trunk = self.visual.trunk
        if isinstance(trunk, Eva) and trunk.rope is not None:
            trunk.rope.update_feat_shape(list(grid))


class TimmConvNeXtReader(TimmReader):
    """Reads a timm ConvNeXt: its head applied to every position.

    Args:
        visual (TimmModel): The tower.
        mode (str): 'value' and 'attention' are the same.

    Raises:
        ValueError: If the tower pools otherwise than by the average, or for
            ``mode='masked_pool'``.
    """

    def __init__(self, visual: TimmModel, mode: str) -> None:
        super().__init__(visual, mode)
        pool_type = visual.trunk.head.global_pool.pool_type
        if pool_type != 'avg':
            raise ValueError('no dense features of this ConvNeXt: it pools by '
                             f'{pool_type!r}, expected the average')
        info = visual.trunk.feature_info
        self.tap_channels = [stage['num_chs'] for stage in info]
        self.tap_strides = [stage['reduction'] for stage in info]
        self.stride = self.tap_strides[-1]

    def encode(
        self, images: Tensor, taps: Sequence[int] = ()
    ) -> tuple[list[Tensor], EncodedImages]:
        """All stages; see :class:`TowerReader`. Tap i is stage i."""
        images = pad_to_multiple(images, (self.stride, self.stride))
        x, maps = self.visual.trunk.forward_intermediates(images)
        return [maps[tap]
                for tap in taps], EncodedImages(x, tuple(x.shape[-2:]))

    def dense(self, encoded: EncodedImages) -> Tensor:
        """Embeddings (N, D, h, w) of all positions."""
        maps = encoded.features
        cells = maps.flatten(2).transpose(1, 2).flatten(0, 1)
        x = self._head(cells[:, :, None, None]).unflatten(0, (len(maps), -1))
        return x.transpose(1, 2).unflatten(2, encoded.grid)


def build_timm_reader(visual: TimmModel, mode: str) -> TowerReader | None:
    """The reader for a timm tower, None if there is none."""
    pools_map = 'pool' in dict(visual.head.named_children())
    if pools_map:
        return None
    if isinstance(visual.trunk, (VisionTransformer, Eva)):
        return TimmViTReader(visual, mode)
    if isinstance(visual.trunk, ConvNeXt):
        return TimmConvNeXtReader(visual, mode)
    return None
