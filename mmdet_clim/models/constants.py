# Licensed under the Apache License, Version 2.0.
"""Tensors that follow from the config, and are neither trained nor saved."""
from typing import Dict, Optional

import torch
from torch import Tensor, nn


class Constants(nn.Module):
    """Tensors that are in no buffer.

    A checkpoint does not hold them, DDP does not send them, and an average of
    weights leaves them out, so that one may change its size at any time, as
    the embeddings of a vocabulary do. They follow their holder to another
    device, and keep their dtype where the holder is cast.

    Args:
        **values: Their names and first values.
    """

    def __init__(self, **values: Tensor) -> None:
        super().__init__()
        self._probe = torch.zeros(0)
        self._values: Dict[str, Optional[Tensor]] = {}
        for name, value in values.items():
            self[name] = value

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self._probe.device

    def __getitem__(self, name: str) -> Optional[Tensor]:
        return self._values[name]

    def __setitem__(self, name: str, value: Optional[Tensor]) -> None:
        if value is not None:
            value = value.detach().to(self.device)
        self._values[name] = value

    def _apply(self, fn, recurse: bool = True):
        super()._apply(fn, recurse)
        # Only the device is taken over.
        self._probe = torch.zeros(0, device=fn(self._probe).device)
        for name, value in self._values.items():
            self[name] = value
        return self
