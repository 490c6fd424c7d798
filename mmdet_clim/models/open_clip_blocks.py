# Licensed under the Apache License, Version 2.0.
"""The residual blocks of open_clip's transformers, with another attention."""
from typing import Callable

from open_clip.transformer import (
    Attention,
    CustomResidualAttentionBlock,
    QuickGELU,
    VisionTransformer,
)
from torch import Tensor, nn
from torch.nn import functional as F


def run_block(block: nn.Module, x: Tensor, attention: Callable) -> Tensor:
    """A residual block with another attention.

    Args:
        block (nn.Module): ``ResidualAttentionBlock`` or
            ``CustomResidualAttentionBlock`` of open_clip.
        x (Tensor): Tokens (N, L, C).
        attention (Callable): Of the block's attention and tokens (N, L, C).
    """
    mixed = attention(block.attn, block.ln_1(x))
    if isinstance(block, CustomResidualAttentionBlock):
        mixed = block.ln_attn(mixed)
    x = x + block.ls_1(mixed)
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def full_attention(attn: nn.Module, x: Tensor) -> Tensor:
    """Self-attention of tokens (N, L, C).

    It is what ``nn.MultiheadAttention`` computes, through
    ``scaled_dot_product_attention`` in every case, so that memory does not
    grow with L squared; whether the module is ``batch_first`` does not
    matter.
    """
    if isinstance(attn, Attention):
        return attn(x)
    q, k, v = F.linear(x, attn.in_proj_weight, attn.in_proj_bias).unflatten(
        -1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(
        q, k, v, dropout_p=attn.dropout if attn.training else 0.)
    return attn.out_proj(mixed.transpose(1, 2).flatten(2))


def value_path(attn: nn.Module, x: Tensor) -> Tensor:
    """Tokens (N, L, C) as if each attended to itself alone."""
    width = x.shape[-1]
    bias = attn.in_proj_bias
    values = F.linear(x, attn.in_proj_weight[2 * width:],
                      None if bias is None else bias[2 * width:])
    if isinstance(attn, Attention):
        if attn.head_scale is not None:
            heads = values.unflatten(-1, (attn.num_heads, -1))
            values = (heads * attn.head_scale[:, 0]).flatten(-2)
        values = attn.ln_inner(values)
    return attn.out_proj(values)


def set_gelu(visual: nn.Module, quick: bool) -> None:
    r"""Run a vision transformer with the other of two activations.

    OpenAI's weights were trained with QuickGELU, :math:`x\,\sigma(1.702 x)`,
    but the same weights run with GELU too, and F-ViT's published detectors
    were trained on them run so (REFERENCE.md, section 5).

    Args:
        visual (nn.Module): ``visual`` of an open_clip model.
        quick (bool): QuickGELU, or GELU.

    Raises:
        ValueError: If it is no vision transformer of open_clip.
    """
    if not isinstance(visual, VisionTransformer):
        raise ValueError(
            'quick_gelu: expected a VisionTransformer of open_clip, got a '
            f'{type(visual).__name__}; leave it None')
    for block in visual.transformer.resblocks:
        block.mlp.gelu = QuickGELU() if quick else nn.GELU()
