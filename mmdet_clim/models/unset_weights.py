# Licensed under the Apache License, Version 2.0.
"""Weights that nothing sets when a model is built."""
from contextlib import contextmanager
from typing import Iterator

import torch
from torch import nn


@contextmanager
def not_a_number_in_new_memory() -> Iterator[None]:
    """Have PyTorch fill memory that nobody has written to yet.

    Some parameters of mmdet (``level_embed`` of detection transformers, the
    scales of SSD, a TridentConv) are such memory until weights are loaded or
    initialised. It holds what was there before, which may be any number.
    """
    before = torch.are_deterministic_algorithms_enabled()
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=only_warns)


def set_what_was_left_unset(model: nn.Module) -> list[str]:
    """Draw the weights that only a checkpoint would set.

    Args:
        model (nn.Module): Built within :func:`not_a_number_in_new_memory`.

    Returns:
        list[str]: Names of these parameters.
    """
    unset = {n: p for n, p in model.named_parameters() if p.isnan().any()}
    for parameter in unset.values():
        nn.init.normal_(parameter, std=.01)
    return list(unset)
