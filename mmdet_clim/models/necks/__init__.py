# Licensed under the Apache License, Version 2.0.
from .fused_map import FusedMap

__all__ = ['FusedMap']
