# Licensed under the Apache License, Version 2.0.
"""Networks that are used and never trained."""
from contextlib import contextmanager

import torch
from torch import nn


class FrozenTower(nn.Module):
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
        self._device_probe = torch.zeros(0)
        self.allow_tf32 = True

    @property
    def tower(self) -> nn.Module:
        """The frozen network."""
        return self._frozen[0]

    @property
    def device(self) -> torch.device:
        """Where the network is and where its outputs will be."""
        return self._device_probe.device

    def _apply(self, fn, recurse: bool = True):
        super()._apply(fn, recurse)
        # Only the device is taken over: model.half() leaves the tower alone.
        self._device_probe = torch.zeros(
            0, device=fn(self._device_probe).device)
        self.tower.to(self.device)
        return self

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
