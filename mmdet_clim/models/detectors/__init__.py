# Licensed under the Apache License, Version 2.0.
from .clim_detector import CLIMDetector

__all__ = ['CLIMDetector']
