# Licensed under the Apache License, Version 2.0.
"""The random order of one pass of a source."""

import numpy as np

#: A source of at most so many samples has its order in memory.
LONGEST_TABLE = 1 << 20
_ROUNDS = 8
# Of SplitMix64 (Steele et al., "Fast splittable pseudorandom number
# generators", 2014).
_FACTORS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


class KeyedPermutation:
    """A random order of which any part costs as much as it is long.

    A Feistel network permutes the numbers below the next power of two; those
    that come out too large go through it again (Black and Rogaway, "Ciphers
    with arbitrary finite domains", 2002).

    Args:
        offset (int): The first of the numbers.
        size (int): How many they are, at least 1.
        seeds (SeedSequence): Which order.
    """

    def __init__(self, offset: int, size: int,
                 seeds: np.random.SeedSequence) -> None:
        self.offset = offset
        self.size = size
        bits = max((size - 1).bit_length(), 2)
        self._low, self._high = np.uint64(bits // 2), np.uint64(bits -
                                                                bits // 2)
        self._keys = seeds.generate_state(_ROUNDS, np.uint64)

    def __getitem__(self, part: slice) -> np.ndarray:
        """The numbers at the places of a slice, int64."""
        places: np.ndarray = np.arange(
            *part.indices(self.size), dtype=np.uint64)
        found = self._permuted(places)
        beyond = np.flatnonzero(found >= self.size)
        while len(beyond):
            found[beyond] = self._permuted(found[beyond])
            beyond = beyond[found[beyond] >= self.size]
        return found.astype(np.int64) + self.offset

    def _permuted(self, numbers: np.ndarray) -> np.ndarray:
        """The numbers below the power of two, (N, ) uint64, permuted."""
        one = np.uint64(1)
        low, high = self._low, self._high
        left, right = numbers >> low, numbers & ((one << low) - one)
        # After an even number of rounds each half is as wide as it was.
        for key in self._keys:
            mixed = (right + key) * _FACTORS[0]
            mixed = (mixed ^ (mixed >> np.uint64(29))) * _FACTORS[1]
            mixed = (mixed ^ (mixed >> np.uint64(32))) & ((one << high) - one)
            left, right = right, left ^ mixed
            low, high = high, low
        return left << low | right


def pass_order(offset: int, size: int,
               seeds: np.random.SeedSequence) -> np.ndarray | KeyedPermutation:
    """A random order of the numbers from ``offset`` on.

    Args:
        offset (int): The first of them.
        size (int): How many they are.
        seeds (SeedSequence): Which order.

    Returns:
        ndarray | KeyedPermutation: Slices of it are (N, ) int64.
    """
    if size > LONGEST_TABLE:
        return KeyedPermutation(offset, size, seeds)
    order = np.arange(offset, offset + size)
    np.random.default_rng(seeds).shuffle(order)
    return order
