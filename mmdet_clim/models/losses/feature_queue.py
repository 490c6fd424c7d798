# Licensed under the Apache License, Version 2.0.
"""Texts or bags of past steps, as further negatives and positives."""

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmdet_clim.checks import check_range
from mmdet_clim.registry import MODELS

from .gather import exchange_counts, gather_rows


@MODELS.register_module()
class FeatureQueue(nn.Module):
    """First-in first-out queue of features and the images they tell of.

    All of it lies in persistent buffers, so a resumed run goes on with the
    queue it had. Under DDP every rank holds the same queue if all of them
    gather what they enqueue. A state of another size loads: its newest
    entries are kept.

    Args:
        size (int): Features held at most.
        dim (int): Width of a feature.

    Raises:
        ValueError: If ``size`` or ``dim`` is not positive.

    Example:
        >>> queue = FeatureQueue(size=2, dim=1)
        >>> queue.enqueue(torch.ones(3, 1), torch.tensor([5, 6, 7]))
        >>> queue.ids
        tensor([6, 7])
    """

    def __init__(self, size: int, dim: int):
        super().__init__()
        check_range(1, size=size, dim=dim)
        self.size = size
        self.dim = dim
        self.register_buffer('stored_features', torch.zeros(size, dim))
        self.register_buffer('stored_ids',
                             torch.zeros(size, dtype=torch.int64))
        self.register_buffer('filled', torch.zeros((), dtype=torch.int64))
        # The same on the host, once it is known there.
        self._filled: int | None = None

    def __len__(self) -> int:
        if self._filled is None:
            self._filled = int(self.filled)
        return self._filled

    @property
    def features(self) -> Tensor:
        """(N, dim) float32 copies of the text features, oldest first."""
        return self.stored_features[:len(self)].float().clone()

    @property
    def ids(self) -> Tensor:
        """(N, ) int64 copies of the image ids, oldest first."""
        return self.stored_ids[:len(self)].clone()

    def extra_repr(self) -> str:
        return f'size={self.size}, dim={self.dim}'

    @torch.no_grad()
    def enqueue(self,
                features: Tensor,
                ids: Tensor,
                gather: bool = True) -> None:
        """Append features and drop the oldest.

        Args:
            features (Tensor): (N, dim) floating point; N may differ between
                ranks.
            ids (Tensor): (N, ) int64 image ids.
            gather (bool): Whether they are those of all ranks, in rank order.
                Every rank then calls this at the same time.

        Raises:
            ValueError: If a shape is wrong or a feature is not finite.
            TypeError: If ``ids`` is not an int64 tensor.
        """
        if features.dim() != 2 or features.shape[1] != self.dim:
            raise ValueError(f'features must be (N, {self.dim}), got '
                             f'{tuple(features.shape)}')
        if not isinstance(ids, Tensor) or ids.dtype != torch.int64:
            found = ids.dtype if isinstance(ids, Tensor) else type(ids)
            raise TypeError('ids must be an int64 tensor (number string ids '
                            f'first), got {found}')
        if ids.shape != features.shape[:1]:
            raise ValueError(f'ids must be ({len(features)}, ), one per '
                             f'feature, got {tuple(ids.shape)}')
        features = features.detach().to(self.stored_features)
        ids = ids.to(self.stored_ids)
        counts, = exchange_counts(len(ids)) if gather else [[len(ids)]]
        if sum(counts) == 0:
            return
        features = gather_rows(features, counts)
        ids = gather_rows(ids, counts)
        if not features.isfinite().all():
            raise ValueError('features must be finite, got inf or NaN for the '
                             'texts of image ids '
                             f'{ids[~features.isfinite().all(1)].tolist()}')
        self._store(
            torch.cat([self.stored_features[:len(self)], features]),
            torch.cat([self.stored_ids[:len(self)], ids]))

    def _store(self, features: Tensor, ids: Tensor) -> None:
        features, ids = features[-self.size:], ids[-self.size:]
        self.stored_features[:len(ids)] = features
        self.stored_ids[:len(ids)] = ids
        self.filled.fill_(len(ids))
        self._filled = len(ids)

    def _load_from_state_dict(self, state_dict, prefix: str, *args) -> None:
        # The last of them takes up what is wrong.
        *_, error_msgs = args
        self._filled = None
        features, ids, filled = (
            state_dict.get(prefix + name)
            for name in ('stored_features', 'stored_ids', 'filled'))
        whole = all(v is not None for v in (features, ids, filled))
        if whole and features.shape[1] != self.dim:
            error_msgs.append(
                f'{prefix[:-1] or "FeatureQueue"}: expected text features of '
                f'width dim={self.dim}, the state has {features.shape[1]}')
            return
        if whole and len(ids) != self.size:
            count = int(filled)
            kept = min(count, self.size)
            print_log(
                f'{prefix[:-1] or "FeatureQueue"}: the state is of size '
                f'{len(ids)}, this queue of size={self.size}: the newest '
                f'{kept} of its {count} texts are kept.', 'current')
            resized = FeatureQueue(self.size, self.dim)
            resized._store(features[:count], ids[:count])
            state_dict = dict(state_dict)
            for name, value in resized.named_buffers():
                state_dict[prefix + name] = value
        super()._load_from_state_dict(state_dict, prefix, *args)
