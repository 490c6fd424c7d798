# Licensed under the Apache License, Version 2.0.
"""Parts of the training engine."""
from .cpu_processes import prepare_cpu_processes
from .hooks import IterationSeedHook

__all__ = ['IterationSeedHook', 'prepare_cpu_processes']
