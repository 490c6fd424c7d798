# Licensed under the Apache License, Version 2.0.
"""Old place of :mod:`mmdet_clim_cli`, until version 1.1."""
from mmdet_clim_cli.mistakes import is_mistake, one_line, run_command
from mmdet_clim_cli.options import device_name, key_value

__all__ = ['device_name', 'is_mistake', 'key_value', 'one_line', 'run_command']
