# Licensed under the Apache License, Version 2.0.
"""Tensors that follow from the config, and are neither trained nor saved."""
from abc import abstractmethod
from typing import Dict, Optional

import torch
from torch import Tensor, nn


class FollowsDevice(nn.Module):
    """What has something that is no child and no buffer, and moves it along.

    It takes over the device of its holder alone: ``model.half()`` leaves what
    it has as it is.
    """

    def __init__(self) -> None:
        super().__init__()
        self._probe = torch.zeros(0)

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self._probe.device

    def _apply(self, fn, recurse: bool = True):
        super()._apply(fn, recurse)
        self._probe = torch.zeros(0, device=fn(self._probe).device)
        self._move()
        return self

    @abstractmethod
    def _move(self) -> None:
        """Bring what it has to :attr:`device`."""


class Constants(FollowsDevice):
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
        self._values: Dict[str, Optional[Tensor]] = {}
        for name, value in values.items():
            self[name] = value

    def __getitem__(self, name: str) -> Optional[Tensor]:
        return self._values[name]

    def __setitem__(self, name: str, value: Optional[Tensor]) -> None:
        if value is not None:
            value = value.detach().to(self.device)
        self._values[name] = value

    def _move(self) -> None:
        for name, value in self._values.items():
            self[name] = value
