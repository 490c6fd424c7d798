# Licensed under the Apache License, Version 2.0.
"""Weights that change in all worker processes of a data loader at once."""
from collections.abc import Sequence

import numpy as np
import torch

#: One number per grid.
Weights = Sequence[float] | np.ndarray


class SharedWeights:
    """Numbers in shared memory: written in one process, read in many.

    Workers of a data loader are copies of the main process, made before the
    first hook is called, and with ``persistent_workers`` they live as long as
    the training. What the main process assigns later does not reach them,
    except through memory that they share.

    There is no lock. Two rows are written in turn, and a reader sees the old
    row until the new one is complete. One process may write. A deep copy
    has memory of its own.

    Args:
        weights (Sequence[float]): Of shape (N, ).
    """

    def __init__(self, weights: Weights) -> None:
        self._rows = torch.zeros(
            2, len(weights), dtype=torch.float64).share_memory_()
        self._current = torch.zeros((), dtype=torch.int64).share_memory_()
        self.write(weights)

    def read(self) -> np.ndarray:
        """The weights of this moment, (N, ) float64, a copy."""
        return self._rows[int(self._current)].numpy().copy()

    def write(self, weights: Weights) -> None:
        """Replace all weights, as one step.

        Args:
            weights (Sequence[float]): Of shape (N, ).
        """
        other = 1 - int(self._current)
        self._rows[other] = torch.as_tensor(weights, dtype=torch.float64)
        self._current.fill_(other)

    def __deepcopy__(self, memo: dict) -> 'SharedWeights':
        return type(self)(self.read())


def checked_weights(weights: Weights | None, count: int) -> np.ndarray:
    """The chances of grids, in any unit.

    Args:
        weights (Sequence[float], optional): Equal chances if None.
        count (int): The number of grids.

    Returns:
        np.ndarray: Of shape (count, ), float64.

    Raises:
        ValueError: If they are not ``count`` numbers of at least 0, or are
            all 0.
    """
    if weights is None:
        return np.ones(count)
    if (len(weights) != count or min(weights) < 0
            or not 0 < sum(weights) < float('inf')):
        raise ValueError(f'grid_weights: expected {count} numbers of at least '
                         f'0 and not all 0, got {weights}')
    return np.array(weights, dtype=float)
