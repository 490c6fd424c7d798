# Licensed under the Apache License, Version 2.0.
"""Contrastive Language-Image Mosaic for any detector of MMDetection."""
from . import stack
from .version import __version__

stack.check_torch()
stack.check_opencv()
stack.check_mmcv()
stack.check_mmdet()
stack.do_without_pkg_resources()
stack.declare_torchvision_operators()
stack.allow_checkpoint_types()
stack.keep_mmengine_to_allowed_types()
stack.allow_config_bases()
stack.silence_warnings_of_good_runs()

__all__ = ['__version__']
