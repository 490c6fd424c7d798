# Licensed under the Apache License, Version 2.0.
"""What a zero-shot dense head classifies, without the rest of the head."""
from contextlib import ExitStack, contextmanager
from typing import List, Sequence

import torch
from torch import Tensor, nn

from mmdet_clim.models.dense_heads import ZeroShotDenseMixin
from mmdet_clim.models.modes import batch_norms

# Positions along a side of the maps on which a head is tried.
PROBE_SIDE = 4


def class_embedding_maps(
    head: ZeroShotDenseMixin,
    levels: Sequence[Tensor],
    idle: Sequence[str] = ()) -> List[Tensor]:
    """Per level, the embeddings (N, D, H, W) that a head classifies.

    Of several priors of one position, their mean. No class is scored.

    Args:
        head (ZeroShotDenseMixin): The head.
        levels (Sequence[Tensor]): The neck's maps (N, C, H, W).
        idle (Sequence[str]): Names of convolutions that the embeddings do
            not depend on, as :func:`idle_convolutions` finds them. Such as
            those that regress boxes, they see one position. Where a batch
            norm follows the statistics of the batch, they see all.
    """
    if any(norm.training for norm in batch_norms(head)):
        idle = ()
    seen: List[Tensor] = []
    with ExitStack() as stack:
        for name in idle:
            stack.enter_context(_of_one_position(head.get_submodule(name)))
        for layer in head.class_layers:
            layer.seen = seen
        try:
            head(tuple(levels))
        finally:
            for layer in head.class_layers:
                layer.seen = None
    return seen


def idle_convolutions(head: ZeroShotDenseMixin,
                      levels: Sequence[Tensor]) -> List[str]:
    """The convolutions of a head that its class embeddings do not depend on.

    Those to which no gradient comes. Then they get other weights and one
    position of their maps: what a head uses without gradient changes the
    embeddings, and nothing is idle.

    Args:
        head (ZeroShotDenseMixin): In evaluation mode; is left as it was.
        levels (Sequence[Tensor]): Some maps (N, C, H, W) that it takes.

    Returns:
        list[str]: Their names in the head.
    """
    corners = [
        level[..., :PROBE_SIDE, :PROBE_SIDE].detach() for level in levels
    ]
    convs = {
        name: module
        for name, module in head.named_modules()
        if isinstance(module, nn.Conv2d) and module.weight.requires_grad
    }
    with torch.enable_grad():
        expected = class_embedding_maps(head, corners)
        if not all(level.requires_grad for level in expected):
            return []
        grads = torch.autograd.grad(
            sum(level.sum() for level in expected),
            [conv.weight for conv in convs.values()],
            allow_unused=True)
    idle = [name for name, grad in zip(convs, grads) if grad is None]
    weights = [convs[name].weight for name in idle]
    kept = [weight.detach().clone() for weight in weights]
    try:
        with torch.no_grad():
            for weight in weights:
                # Of both signs, so that no activation hides all of it.
                wave = torch.arange(weight.numel(), device=weight.device).cos()
                weight.add_(wave.view_as(weight))
            found = class_embedding_maps(head, corners, idle)
        is_same = all(map(torch.equal, found, expected))
    except RuntimeError:  # maps of one position and of all, put together
        is_same = False
    finally:
        with torch.no_grad():
            for weight, before in zip(weights, kept):
                weight.copy_(before)
    return idle if is_same else []


@contextmanager
def _of_one_position(conv: nn.Conv2d):
    """Let a convolution see the first position of its map alone."""
    handle = conv.register_forward_pre_hook(lambda module, args:
                                            (args[0][..., :1, :1], *args[1:]))
    try:
        yield
    finally:
        handle.remove()
