# Licensed under the Apache License, Version 2.0.
"""Activation checkpointing of detectors that several branches run through."""
from contextlib import contextmanager
from functools import partial

from torch import nn
from torch.utils import checkpoint


@contextmanager
def not_reentrant():
    """Have mmdet's ``with_cp`` recompute within the one backward pass.

    mmdet asks for nothing, which is PyTorch's re-entrant kind: a backward
    pass within the backward pass. Of a backbone that two branches run
    through, DDP then sees each parameter twice and stops ("marked as ready
    twice").
    """
    kept = checkpoint.checkpoint
    checkpoint.checkpoint = partial(kept, use_reentrant=False)
    try:
        yield
    finally:
        checkpoint.checkpoint = kept


def check_checkpoints(detector: nn.Module) -> None:
    """Refuse the checkpointing of fairscale, which is re-entrant always.

    Args:
        detector (nn.Module): A detector of several branches.

    Raises:
        ValueError: If a part of it has ``num_cp``.
    """
    for name, module in detector.named_modules():
        if vars(module).get('num_cp', 0) > 0:
            raise ValueError(
                f'{name}.num_cp: expected 0, as fairscale recomputes in a '
                'backward pass of its own, which DDP does not allow with '
                f'several branches, got {module.num_cp}; with_cp=True in the '
                'backbone saves memory too')
