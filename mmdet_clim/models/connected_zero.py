# Licensed under the Apache License, Version 2.0.
"""A zero that hangs on parameters, so that DDP waits for none of them."""
from typing import Iterable

import torch
from mmengine.dist import get_world_size
from torch import Tensor, nn
from torch.autograd import Function


class _Zero(Function):
    """Zero, whose gradient to every parameter is zero, whatever its value."""

    @staticmethod
    def forward(ctx, *parameters: Tensor) -> Tensor:
        # Not as saved tensors: one may be clamped before the backward pass.
        ctx.parameters = parameters
        return parameters[0].new_zeros(())

    @staticmethod
    def backward(ctx, grad: Tensor):
        return tuple(torch.zeros_like(p) for p in ctx.parameters)


def connected_zero(modules: Iterable[nn.Module]) -> Tensor:
    """Zero that gives every parameter that learns a gradient of zero.

    ``UnreachedWeightsHook`` takes these gradients away when DDP is done.

    Where there is one process, nobody waits for it: what no loss reaches gets
    no gradient, so that weight decay leaves it alone.

    Args:
        modules (Iterable[nn.Module]): With the parameters.

    Returns:
        Tensor: Scalar; without a graph in one process, or where no parameter
        learns.
    """
    if get_world_size() == 1:
        return torch.zeros(())
    parameters = [
        p for module in modules for p in module.parameters() if p.requires_grad
    ]
    return _Zero.apply(*parameters) if parameters else torch.zeros(())
