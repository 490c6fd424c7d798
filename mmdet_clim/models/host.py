# Licensed under the Apache License, Version 2.0.
"""From the host to the device, without waiting for it."""
from typing import Any

import torch
from torch import Tensor


def upload(values: Any, like: Tensor) -> Tensor:
    """Put values of the host where a tensor is.

    Through pinned memory where there is a GPU, so that the host does not wait
    for what the GPU has yet to do.

    Args:
        values (Any): A tensor on the CPU, which keeps its dtype, or what
            ``torch.tensor`` takes, which gets the dtype of ``like``.
        like (Tensor): On the wanted device.
    """
    if not isinstance(values, Tensor):
        values = torch.tensor(values, dtype=like.dtype)
    if like.device.type == 'cuda' and torch.cuda.is_available():
        values = values.pin_memory()
    return values.to(like.device, non_blocking=True)
