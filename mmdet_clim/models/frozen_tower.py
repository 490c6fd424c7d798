# Licensed under the Apache License, Version 2.0.
"""What a module holds that is neither trained nor saved."""
import hashlib
from abc import abstractmethod
from contextlib import contextmanager
from typing import Any

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
        self._values: dict[str, Tensor | None] = {}
        for name, value in values.items():
            self[name] = value

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __setitem__(self, name: str, value: Tensor | None) -> None:
        if value is not None:
            value = value.detach().to(self.device)
        self._values[name] = value

    def _move(self) -> None:
        for name, value in self._values.items():
            self[name] = value


class FrozenTower(FollowsDevice):
    """Holder of a frozen network.

    The network is no child module: it is in no ``parameters()``, optimiser,
    DDP bucket or checkpoint. It follows its holder to another device, but
    stays in float32 and in evaluation mode whatever happens around it.

    Args:
        tower (nn.Module): The network. It is frozen.
    """

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        # In a tuple, so that nn.Module does not register it.
        self._frozen = (tower.float().eval().requires_grad_(False), )
        self.allow_tf32 = True

    @property
    def tower(self) -> nn.Module:
        """The frozen network."""
        return self._frozen[0]

    def _move(self) -> None:
        self.tower.to(self.device)

    @contextmanager
    def full_speed(self):
        """Have the network's matrix products round as TF32 on a GPU.

        Its outputs are targets or inputs of what learns, in float32 still;
        with 10 bits of the factors they are as near to those of CLIP as its
        own half precision. Elsewhere nothing changes, nor where
        ``allow_tf32`` is off, as for vocabularies, which are encoded once and
        kept for other machines.
        """
        if self.device.type != 'cuda' or not self.allow_tf32:
            yield
            return
        kept = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision('high')
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(kept)


def fingerprint(network: nn.Module, others: Any) -> str:
    """By which what a network gives is told from that of other weights.

    Args:
        network (nn.Module): Any network.
        others (Any): What else it depends on, told apart by its ``repr``.
    """
    digest = hashlib.sha256(repr(others).encode())
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(
            torch.uint8).numpy())
    return digest.hexdigest()
