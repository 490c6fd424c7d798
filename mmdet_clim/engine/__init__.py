# Licensed under the Apache License, Version 2.0.
"""Parts of the training engine."""
from .hooks import IterationSeedHook

__all__ = ['IterationSeedHook']
