# Licensed under the Apache License, Version 2.0.
"""Random draws of the model that a resumed run repeats exactly."""
import random
from typing import Optional

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook

from mmdet_clim.registry import HOOKS


@HOOKS.register_module()
class IterationSeedHook(Hook):
    """Seed every training iteration by its number.

    On resume MMEngine seeds the process as at the start of a run and draws
    the data of the finished iterations again, which brings the data pipeline
    to where it was; it does not run the model on them, and no state of a
    random generator is in a checkpoint. What the model draws itself (which
    proposals a sampler keeps, captions, compositions, dropout) would
    therefore go on differently, and with ``num_workers=0``, where the model
    and the pipeline draw from the same generators, so would the data.

    With this hook an iteration of the model draws from generators seeded
    with (seed, rank, iteration) and the generators are put back after it, so
    that

    - the draws of the model depend on the iteration number and nothing else;
    - the data pipeline never notices how much the model or a validation
      draws, also in the same process.

    A run resumed by ``IterBasedTrainLoop`` then continues as the
    uninterrupted one would, given a fixed ``randomness.seed``, on the same
    hardware and with deterministic operations. onedl-mmengine 0.10.12 does
    not draw the finished iterations' data again where it can advance the
    sampler alone (one with ``skip``, or ``num_workers=0``): the transforms'
    draws then differ, those of the model do not. It covers Python's
    ``random``, NumPy's global generator and torch on the CPU, all of them
    put back, and torch on the accelerators, seeded only.

    Args:
        seed (int, optional): A non-negative seed. Defaults to None, which
            takes the runner's.

    Raises:
        ValueError: If ``seed`` is negative or not an integer.
    """

    def __init__(self, seed: Optional[int] = None) -> None:
        if seed is not None and (not isinstance(seed, int) or seed < 0):
            raise ValueError('seed: IterationSeedHook expects an integer of '
                             f'at least 0 or None, got {seed!r}')
        self.seed = seed
        self._kept: Optional[tuple] = None

    def before_train_iter(self,
                          runner,
                          batch_idx: int,
                          data_batch: Optional[dict] = None) -> None:
        """Seed the generators for this iteration."""
        self._keep()
        seed = runner.seed if self.seed is None else self.seed
        words = np.random.SeedSequence([seed, get_rank(),
                                        runner.iter]).generate_state(4)
        random.seed(words.tobytes())
        np.random.seed(words)
        # the CPU and every accelerator
        torch.manual_seed(int(words[0]) << 32 | int(words[1]))

    def after_train_iter(self,
                         runner,
                         batch_idx: int,
                         data_batch: Optional[dict] = None,
                         outputs: Optional[dict] = None) -> None:
        """Give the generators back to the data pipeline."""
        self._put_back()

    def before_val(self, runner) -> None:
        """Remember the generators: a resumed run validates less often."""
        self._keep()

    def after_val(self, runner) -> None:
        """Give the generators back to the data pipeline."""
        self._put_back()

    def _keep(self) -> None:
        self._kept = (random.getstate(), np.random.get_state(),
                      torch.get_rng_state())

    def _put_back(self) -> None:
        python_state, numpy_state, torch_state = self._kept
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
