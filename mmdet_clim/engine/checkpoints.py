# Licensed under the Apache License, Version 2.0.
"""Files of weights."""
import os
from pathlib import Path

import torch


def save_atomically(checkpoint: dict, path: Path) -> None:
    """Write a checkpoint so that the path never holds half of it.

    Args:
        checkpoint (dict): What ``torch.save`` takes.
        path (Path): Its folder is made where it is missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f'{path.name}.{os.getpid()}')
    try:
        torch.save(checkpoint, unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
