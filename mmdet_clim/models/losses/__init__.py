# Licensed under the Apache License, Version 2.0.
from .clim_region_loss import CLIMRegionLoss
from .text_queue import TextQueue

__all__ = ['CLIMRegionLoss', 'TextQueue']
