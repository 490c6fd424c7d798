# Licensed under the Apache License, Version 2.0.
from .clim_detector import CLIMDetector
from .fvit import FViT

__all__ = ['CLIMDetector', 'FViT']
