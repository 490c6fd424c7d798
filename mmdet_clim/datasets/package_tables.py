# Licensed under the Apache License, Version 2.0.
"""Tables of words and drawings, which lie beside their modules as YAML."""
from pathlib import Path
from typing import Any

import yaml


def table_beside(module: str) -> Any:
    """What the YAML of a module holds; every scalar is a string.

    Args:
        module (str): Its ``__file__``.
    """
    path = Path(module).with_suffix('.yaml')
    return yaml.load(path.read_text(encoding='utf-8'), yaml.BaseLoader)
