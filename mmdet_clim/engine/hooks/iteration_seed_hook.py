# Licensed under the Apache License, Version 2.0.
"""Random draws of the model that a resumed run repeats exactly."""

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook

from mmdet_clim.registry import HOOKS
from mmdet_clim.seeds import (
    generator_states,
    restore_generators,
    seed_generators,
)


@HOOKS.register_module()
class IterationSeedHook(Hook):
    """Seed every training iteration by its number.

    No state of a random generator is in a checkpoint. What the model draws
    itself (which proposals a sampler keeps, captions, compositions, dropout)
    would therefore go on differently in a resumed run, and with
    ``num_workers=0``, where the model and the pipeline draw from the same
    generators, so would data that is not drawn by ``MultiSourceSampler``.

    With this hook an iteration of the model draws from generators seeded
    with (seed, rank, iteration) and the generators are put back after it, so
    that

    - the draws of the model depend on the iteration number and nothing else,
      and no two seeds, ranks or iterations share a stream;
    - the data pipeline never notices how much the model or a validation
      draws, also in the same process.

    A resumed run (``ResumableTrainLoop``) then continues as the
    uninterrupted one would, on the same hardware and with deterministic
    operations. It covers Python's ``random``, NumPy's global generator and
    torch on the CPU, all of them put back, and torch on the accelerators,
    seeded only.

    Args:
        seed (int, optional): A non-negative seed. Defaults to None, which
            takes the runner's.

    Raises:
        ValueError: If ``seed`` is negative or not an integer.
    """

    def __init__(self, seed: int | None = None) -> None:
        if seed is not None and (not isinstance(seed, int) or seed < 0):
            raise ValueError('seed: IterationSeedHook expects an integer of '
                             f'at least 0 or None, got {seed!r}')
        self.seed = seed
        self._kept: tuple = ()

    def before_train_iter(self,
                          runner,
                          batch_idx: int,
                          data_batch: dict | None = None) -> None:
        """Seed the generators for this iteration."""
        self._kept = generator_states()
        seed = runner.seed if self.seed is None else self.seed
        seed_generators('model', seed, get_rank(), runner.iter)
        # Every accelerator too.
        torch.manual_seed(torch.initial_seed())

    def after_train_iter(self,
                         runner,
                         batch_idx: int,
                         data_batch: dict | None = None,
                         outputs: dict | None = None) -> None:
        """Give the generators back to the data pipeline."""
        restore_generators(self._kept)

    def before_val(self, runner) -> None:
        """Remember the generators: a resumed run validates less often."""
        self._kept = generator_states()

    def after_val(self, runner) -> None:
        """Give the generators back to the data pipeline."""
        restore_generators(self._kept)
