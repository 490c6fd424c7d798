# Licensed under the Apache License, Version 2.0.
"""Training hooks."""
from .iteration_seed_hook import IterationSeedHook

__all__ = ['IterationSeedHook']
