# Licensed under the Apache License, Version 2.0.
"""Which weights of an image tower are trained."""

from torch import nn

ALL = 'all'


def tower_blocks(visual: nn.Module) -> list[nn.Module]:
    """The blocks of an open_clip image tower, first to last.

    Args:
        visual (nn.Module): ``visual`` of an open_clip model.

    Returns:
        list[nn.Module]: Transformer blocks of a ViT; the four stages of a
        ResNet; ``blocks`` or ``stages`` of a timm trunk.

    Raises:
        TypeError: If the tower is of another kind.
    """
    # open_clip imports torchvision, for which importing mmdet_clim prepares;
    # a project without CLIP need not have either.
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.timm_model import TimmModel
    from open_clip.transformer import VisionTransformer
    if isinstance(visual, VisionTransformer):
        return list(visual.transformer.resblocks)
    if isinstance(visual, ModifiedResNet):
        return [visual.layer1, visual.layer2, visual.layer3, visual.layer4]
    if isinstance(visual, TimmModel):
        parts = dict(visual.trunk.named_children())
        for name in ('blocks', 'stages'):
            if name in parts:
                return list(parts[name].children())
    raise TypeError(
        'image_tower: the blocks of a VisionTransformer, a ModifiedResNet or '
        "a timm trunk with 'blocks' or 'stages' can be unlocked, got "
        f'{type(visual).__name__}')


def unlock_blocks(visual: nn.Module, count: int | str) -> None:
    """Freeze an image tower but for its last blocks.

    What comes before, between and after the blocks (embeddings, last norm,
    projection) stays frozen. Of a ResNet, where the attention pool looks (its
    query, key and position) is trained with the last stage; what it gives
    (value and output) stays frozen. So it is in REFERENCE.md, section 4: the
    last 6 of 12 blocks of a ViT-B/16, layer4 and the pool of a RN50x64.

    Args:
        visual (nn.Module): ``visual`` of an open_clip model.
        count (int | str): The number of blocks, or 'all' for every weight.

    Raises:
        ValueError: If there are not so many blocks.
    """
    if count == ALL:
        visual.requires_grad_(True)
        return
    from open_clip.modified_resnet import ModifiedResNet
    blocks = tower_blocks(visual)
    if not isinstance(count, int) or not 0 <= count <= len(blocks):
        raise ValueError(f'unlocked_blocks: expected 0 to {len(blocks)} for '
                         f'this tower, or {ALL!r}, got {count!r}')
    visual.requires_grad_(False)
    for block in blocks[len(blocks) - count:]:
        block.requires_grad_(True)
    if count and isinstance(visual, ModifiedResNet):
        pool = visual.attnpool
        for part in (pool.q_proj, pool.k_proj, pool.positional_embedding):
            part.requires_grad_(True)
