# Licensed under the Apache License, Version 2.0.
"""A zero that hangs on parameters, so that DDP waits for none of them."""
from typing import Iterable

import torch
from mmengine.dist import get_world_size
from torch import Tensor, nn


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
    # The sum of nothing: a factor of 0 would leave NaN where a weight is one.
    nothing = [
        torch.atleast_1d(p)[:0].flatten() for module in modules
        for p in module.parameters() if p.requires_grad
    ]
    return torch.cat(nothing).sum() if nothing else torch.zeros(())
