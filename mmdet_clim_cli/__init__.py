# Licensed under the Apache License, Version 2.0.
"""Command lines of mmdet_clim: what they offer, and how they end.

A package of its own, as ``import mmdet_clim`` checks and mends the whole
stack, which takes ten seconds. Nothing here imports more than the standard
library before a command line is parsed.
"""
