# Licensed under the Apache License, Version 2.0.
"""Several ranks train what one would, and nothing else."""
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict
from torch.optim import Optimizer

from mmdet_clim.registry import HOOKS


@HOOKS.register_module()
class UnreachedWeightsHook(Hook):
    """Keep weight decay from weights that no loss of a step reaches.

    An optimizer leaves out what has no gradient. DDP waits for a gradient of
    everything, so that on several ranks a weight that nothing trains, such as
    the RPN's in a training on captions alone, has one of zeros; AdamW would
    make it a little smaller in every step. With this hook it has none by the
    time of the step, as in one process.

    A gradient counts as one of zeros after the ranks have averaged theirs, so
    all of them leave out the same weights. The host waits once per step for
    which these are. In one process the hook does nothing.
    """

    def before_train(self, runner) -> None:
        """Have each optimizer leave them out."""
        if get_world_size() == 1:
            return
        wrapper = runner.optim_wrapper
        wrappers = wrapper.values() if isinstance(
            wrapper, OptimWrapperDict) else [wrapper]
        for of_part in wrappers:
            of_part.optimizer.register_step_pre_hook(drop_zero_gradients)


def drop_zero_gradients(optimizer: Optimizer, *args: Any) -> None:
    """Take away the gradients that are zero throughout.

    Args:
        optimizer (torch.optim.Optimizer): That is about to make a step.
        *args: Of its ``step``, not used.
    """
    reached = [
        parameter for group in optimizer.param_groups
        for parameter in group['params'] if parameter.grad is not None
    ]
    if not reached:
        return
    learns = torch.stack([parameter.grad.any() for parameter in reached])
    for parameter, is_trained in zip(reached, learns.tolist()):
        if not is_trained:
            parameter.grad = None
