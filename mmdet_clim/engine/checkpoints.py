# Licensed under the Apache License, Version 2.0.
"""Files of weights."""
import os
from collections import OrderedDict
from pathlib import Path
from typing import Mapping

import torch
from torch import Tensor, nn

from mmdet_clim.models.detectors.clim_detector import DETECTOR_PREFIX


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


def strip_state_dict(state_dict: Mapping[str, Tensor]) -> OrderedDict:
    """Keep the weights of the wrapped detector, under its own names.

    Args:
        state_dict (Mapping): Name to tensor of a ``CLIMDetector``.

    Returns:
        OrderedDict: Name to tensor of the detector.

    Raises:
        ValueError: No name begins with the prefix of the wrapper.
    """
    stripped = OrderedDict((name[len(DETECTOR_PREFIX):], weight)
                           for name, weight in state_dict.items()
                           if name.startswith(DETECTOR_PREFIX))
    if not stripped:
        raise ValueError(
            f'state_dict: expected names with the prefix {DETECTOR_PREFIX!r} '
            f'of CLIMDetector, got {list(state_dict)[:3]} ...; a checkpoint '
            'of a plain detector needs no stripping')
    return stripped


def detector_weights(checkpoint: Mapping,
                     detector: nn.Module) -> Mapping[str, Tensor]:
    """The weights of a plain detector, from its checkpoint or a wrapped one.

    Args:
        checkpoint (Mapping): What ``torch.load`` gave.
        detector (nn.Module): Whose weights they are.

    Returns:
        Mapping: Name to tensor.

    Raises:
        ValueError: If none of the names is one of the detector's.
    """
    state_dict = checkpoint.get('state_dict', checkpoint)
    if any(name.startswith(DETECTOR_PREFIX) for name in state_dict):
        state_dict = strip_state_dict(state_dict)
    if not set(state_dict) & set(detector.state_dict()):
        raise ValueError(f'weights: none of {list(state_dict)[:3]} ... is a '
                         f'weight of {type(detector).__name__}')
    return state_dict
