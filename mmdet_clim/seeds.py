# Licensed under the Apache License, Version 2.0.
"""Random streams that do not meet, whatever seeds they come from.

Sums of seeds and positions give one stream to many: with MMEngine's *seed +
worker + workers x rank*, worker 1 of a run with seed 0 draws what worker 0
of a run with seed 1 does. Here a stream belongs to a purpose and a position,
such as ('sample', seed, rank, iteration, number), and to nothing else.
"""
import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_sequence(purpose: str, *position: int) -> np.random.SeedSequence:
    """The seeds of one stream.

    Args:
        purpose (str): What draws from it.
        *position (int): The run's seed, and whatever else tells this stream
            from the others of its purpose.

    Returns:
        SeedSequence: Of 128 bits. ``SeedSequence([seed, rank])`` itself would
        take (seed, rank) and (seed, rank, 0) for the same, and a seed of 33
        bits and the next rank.
    """
    words = repr((purpose, *map(int, position))).encode()
    digest = hashlib.blake2b(words, digest_size=16).digest()
    return np.random.SeedSequence(int.from_bytes(digest, 'little'))


def seed_generators(purpose: str, *position: int) -> None:
    """Seed Python's, NumPy's and torch's global generators on the CPU.

    Args:
        purpose, *position: Of :func:`seed_sequence`.
    """
    words = seed_sequence(purpose, *position).generate_state(8)
    random.seed(words.tobytes())
    np.random.seed(words[:4])
    torch.default_generator.manual_seed(int(words[4]) << 32 | int(words[5]))


@contextmanager
def seeded_generators(purpose: str, *position: int) -> Iterator[None]:
    """Seed the global generators for a while, then put them back.

    Args:
        purpose, *position: Of :func:`seed_sequence`.
    """
    kept = generator_states()
    seed_generators(purpose, *position)
    try:
        yield
    finally:
        restore_generators(kept)


def generator_states() -> tuple:
    """States of the three global generators on the CPU."""
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def restore_generators(states: tuple) -> None:
    """Put back what :func:`generator_states` gave."""
    python_state, numpy_state, torch_state = states
    random.setstate(python_state)
    np.random.set_state(numpy_state)
    torch.set_rng_state(torch_state)
