# Licensed under the Apache License, Version 2.0.
"""Training and evaluation mode of parts of a model."""
from contextlib import contextmanager
from typing import Iterator

from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm
from torch import nn


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, after which each module has the mode it had."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def batch_norms(module: nn.Module) -> list[nn.Module]:
    """The batch norms in a module, whose statistics follow a training."""
    return [part for part in module.modules() if isinstance(part, _BatchNorm)]
