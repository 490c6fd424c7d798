# Licensed under the Apache License, Version 2.0.
"""What all text encoders share: frozen towers and a cache of embeddings."""
import logging
from abc import ABCMeta, abstractmethod
from collections import OrderedDict
from typing import List, Sequence

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor, nn


class BaseTextEncoder(nn.Module, metaclass=ABCMeta):
    """Frozen encoder of strings to unit vectors, with a bounded cache.

    The tower is no child module: it is in no ``parameters()``, optimiser,
    DDP bucket or checkpoint. It follows the encoder to another device, but
    stays in float32 and in evaluation mode whatever happens around it.

    A subclass implements :meth:`_encode`.

    Args:
        tower (nn.Module): What encodes. It is frozen.
        cache_size (int): Distinct texts whose embeddings are kept, the least
            recently used going first. 0: none.
        batch_size (int): Texts encoded at a time.

    Raises:
        ValueError: If ``cache_size`` is negative or ``batch_size`` not
            positive.
    """

    def __init__(self,
                 tower: nn.Module,
                 cache_size: int = 65536,
                 batch_size: int = 256):
        super().__init__()
        if cache_size < 0:
            raise ValueError(
                f'cache_size must not be negative, got {cache_size}')
        if batch_size < 1:
            raise ValueError(f'batch_size must be positive, got {batch_size}')
        self.cache_size = cache_size
        self.batch_size = batch_size
        # In a tuple, so that nn.Module does not register it.
        self._frozen = (tower.float().eval().requires_grad_(False), )
        self._device_probe = torch.zeros(0)
        self._cache = OrderedDict()
        self.num_truncated = 0

    @property
    def tower(self) -> nn.Module:
        """The frozen module that encodes."""
        return self._frozen[0]

    @property
    @abstractmethod
    def dim(self) -> int:
        """Width of a text embedding."""

    @property
    def device(self) -> torch.device:
        """Where the tower is and where the embeddings will be."""
        return self._device_probe.device

    def _apply(self, fn, recurse: bool = True):
        super()._apply(fn, recurse)
        # Only the device is taken over: model.half() leaves the tower alone.
        self._device_probe = torch.zeros(
            0, device=fn(self._device_probe).device)
        self.tower.to(self.device)
        for text, embedding in self._cache.items():
            self._cache[text] = embedding.to(self.device)
        return self

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Encode texts, each distinct one at most once.

        Args:
            texts (Sequence[str]): N texts, none of them empty.

        Returns:
            Tensor: (N, dim) float32 unit vectors on :attr:`device`, without
            gradient.

        Raises:
            TypeError: If ``texts`` is one string or holds something else.
            ValueError: If a text is empty.
        """
        check_texts(texts)
        found = {}
        missing = []
        for text in dict.fromkeys(texts):
            if text in self._cache:
                self._cache.move_to_end(text)
                found[text] = self._cache[text]
            else:
                missing.append(text)
        for start in range(0, len(missing), self.batch_size):
            batch = missing[start:start + self.batch_size]
            for text, embedding in zip(batch, self._encode_frozen(batch)):
                # A copy, lest one row keeps its whole batch in memory.
                found[text] = self._cache[text] = embedding.clone()
        while len(self._cache) > self.cache_size:
            self._cache.popitem(last=False)
        if not texts:
            return torch.zeros(0, self.dim, device=self.device)
        return torch.stack([found[text] for text in texts])

    @torch.no_grad()
    def _encode_frozen(self, texts: List[str]) -> Tensor:
        with torch.autocast(self.device.type, enabled=False):
            return F.normalize(self._encode(texts).float(), dim=-1)

    @abstractmethod
    def _encode(self, texts: List[str]) -> Tensor:
        """Encode N distinct texts; (N, dim) of any norm."""

    def _report_truncated(self, texts: Sequence[str], limit: int) -> None:
        """Count texts that were cut off, and say so the first time."""
        if texts and not self.num_truncated:
            print_log(
                f'{type(self).__name__}: texts longer than the limit of '
                f'{limit} tokens are cut off there, the first of them '
                f'{texts[0][:60]!r}. Said once; num_truncated counts them.',
                logger='current',
                level=logging.WARNING)
        self.num_truncated += len(texts)

    def extra_repr(self) -> str:
        return f'dim={self.dim}, cache_size={self.cache_size}'


def check_texts(texts: Sequence[str]) -> None:
    """Refuse what is no sequence of texts.

    Args:
        texts (Sequence[str]): May be empty.

    Raises:
        TypeError: If ``texts`` is one string or holds something else.
        ValueError: If a text is empty.
    """
    if isinstance(texts, str):
        raise TypeError('texts must be a sequence of strings, got the string '
                        f'{texts!r}')
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f'texts[{index}] must be a string, got {text!r}')
        if not text.strip():
            raise ValueError(f'texts[{index}] is empty: a caption or a class '
                             'name must say something')
