# Licensed under the Apache License, Version 2.0.
"""Files of weights."""
import logging
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from mmdet_clim.datasets.archives import load_stored
from mmdet_clim.files import atomic_path
from mmdet_clim.models.detectors.clim_detector import DETECTOR_PREFIX

from .safetensors_files import SUFFIX, read_safetensors

#: Parts of a model that no prediction needs.
TRAINING_PREFIXES = ('objectives.', 'region_reader.')
# What torch says of a weight of another shape.
SIZE_MISMATCH = re.compile(
    r'size mismatch for (\S+): copying a param with shape '
    r'torch\.Size\(\[(.*?)\]\) from checkpoint, the shape in current model '
    r'is torch\.Size\(\[(.*?)\]\)')
#: Of a list of names, how many a message has.
SHOWN = 8


def save_atomically(checkpoint: dict, path: Path) -> None:
    """Write a checkpoint so that the path never holds half of it.

    Args:
        checkpoint (dict): What ``torch.save`` takes.
        path (Path): Its folder is made where it is missing.

    Raises:
        OSError: If it can not be written there.
    """
    # torch names no file where it can not open one itself.
    with atomic_path(path) as beside, open(beside, 'wb') as file:
        torch.save(checkpoint, file)


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
    state_dict = _state_dict(checkpoint)
    if any(name.startswith(DETECTOR_PREFIX) for name in state_dict):
        state_dict = strip_state_dict(state_dict)
    if not set(state_dict) & set(detector.state_dict()):
        raise ValueError(_none_fits(state_dict, detector))
    return state_dict


def read_checkpoint(path: str | Path, mmap: bool = False) -> Mapping:
    """Read a file of weights, which may hold nothing but data.

    Args:
        path (str or Path): The file, in ``.safetensors`` too, or an address
            that MMEngine knows.
        mmap (bool): Whether to leave tensors in the file, to look at what
            else it holds.

    Returns:
        Mapping: ``state_dict`` and what else a training keeps, or the
        weights alone.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no checkpoint, or holds more than data.
    """
    try:
        if '://' in str(path):
            checkpoint = CheckpointLoader.load_checkpoint(
                str(path), map_location='cpu')
        elif not Path(path).exists():
            raise FileNotFoundError(f'checkpoint: {path} does not exist')
        elif Path(path).suffix == SUFFIX:
            checkpoint = read_safetensors(path)
        else:
            checkpoint = load_stored(path, mmap)
    except UnpicklingError as error:
        raise ValueError(
            f'checkpoint: {path} is refused by torch.load (UnpicklingError): '
            'it is not a checkpoint, or contains more than weights and '
            'numbers and could run code') from error
    except (EOFError, RuntimeError, IndexError, KeyError, AttributeError,
            TypeError) as error:
        # torch takes what is no archive for a pickle, which fails anywhere.
        raise ValueError(
            f'checkpoint: {path} is not a checkpoint, or cut short '
            f'({str(error).partition(chr(10))[0]})') from error
    if not isinstance(checkpoint, Mapping):
        raise ValueError(f'checkpoint: {path}: expected weights by name, got '
                         f'{type(checkpoint).__name__}')
    return checkpoint


def load_weights(model: nn.Module,
                 checkpoint: str | Path | Mapping,
                 source: str | Path | None = None,
                 needs_all: bool = True,
                 skip: Sequence[str] = ()) -> None:
    """Load a checkpoint, and refuse one that does not fit.

    A checkpoint of a ``CLIMDetector`` loads in the plain detector, and the
    other way round. What a training alone needs (objectives, region readers)
    may be missing, as may what the checkpoint itself says that it leaves out
    (``meta['left_out']``, of ``tools/checkpoints/convert_published.py``).
    Weights that the model has not are counted in the log.

    Args:
        model (nn.Module): What gets the weights.
        checkpoint (str, Path or Mapping): A file, or what
            :func:`read_checkpoint` gave.
        source (str or Path, optional): What an error calls the checkpoint.
        needs_all (bool): Whether every weight of the detector has to be in
            the checkpoint. Where a training begins, those that are not keep
            their first values and are counted in a warning.
        skip (Sequence[str]): Patterns (``fnmatch``) of weights that are to
            keep their first values whatever the checkpoint holds.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no checkpoint; none of its names is one of the
            model's; a weight has another shape; or one is missing. The
            message names the weights and their shapes.
    """
    if not isinstance(checkpoint, Mapping):
        source = source or checkpoint
        checkpoint = read_checkpoint(checkpoint)
    where = f'checkpoint: {source}' if source else 'checkpoint'
    if is_model_wrapper(model):
        model = model.module
    try:
        weights = _state_dict(checkpoint)
    except ValueError as error:
        raise ValueError(f'{where}: {error}') from error
    own = model.state_dict()
    if not any(name.startswith(DETECTOR_PREFIX) for name in own) and any(
            name.startswith(DETECTOR_PREFIX) for name in weights):
        weights = strip_state_dict(weights)
    weights = _without(weights, skip)
    missing, unexpected, wrong = _load(model, weights)
    if wrong:
        raise ValueError(
            f'{where}: {len(wrong)} weights have other shapes than those of '
            f'{type(model).__name__}: {_some(wrong)}. Give the config and the '
            'checkpoint of the same detector; load_from_skip=[PATTERN, ...] '
            'in the config of a training leaves some weights at their '
            'initialization')
    missing = [
        name for name in missing if not name.endswith('num_batches_tracked')
        and name not in _matching(missing, skip)
    ]
    if len(missing) == len([n for n in own if 'num_batches' not in n]):
        raise ValueError(f'{where}: {_none_fits(weights, model)}')
    meta = checkpoint.get('meta')
    left_out = meta.get('left_out', ()) if isinstance(meta, Mapping) else ()
    needed = [
        name for name in missing
        if not name.startswith(TRAINING_PREFIXES) and name not in left_out
    ]
    if needed and needs_all:
        raise ValueError(
            f'{where}: {len(needed)} of {len(own)} weights of '
            f'{type(model).__name__} are missing: {_some(needed)}. Give the '
            'config and the checkpoint of the same detector')
    if missing:
        print_log(
            f'{where}: {len(missing)} weights are missing and keep their '
            f'initialization: {_some(missing)}', 'current', logging.WARNING)
    if unexpected:
        print_log(
            f'{where}: {len(unexpected)} weights are not used: '
            f'{_some(unexpected)}', 'current')


def _state_dict(checkpoint: Mapping) -> OrderedDict:
    """Name to tensor, without the prefix of a distributed model."""
    given = checkpoint.get('state_dict', checkpoint)
    tensors = isinstance(given, Mapping) and [
        name for name, value in given.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    ]
    if not tensors:
        raise ValueError('expected weights by name, or "state_dict" with '
                         'them, got '
                         f'{sorted(map(str, checkpoint))[:8]}')
    weights: Any = OrderedDict(
        (re.sub('^module[.]', '', name), given[name]) for name in tensors)
    # By it, modules know weights of their earlier forms.
    weights._metadata = getattr(given, '_metadata', None)
    return weights


def _load(model: nn.Module, weights: Mapping[str, Tensor]) -> tuple:
    """Load, and say what is missing, unexpected and of another shape."""
    try:
        missing, unexpected = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        wrong = [
            f'{name} {_shape(given)}, expected {_shape(own)}'
            for name, given, own in SIZE_MISMATCH.findall(str(error))
        ]
        others = SIZE_MISMATCH.sub('', str(error)).splitlines()[1:]
        wrong += [line.strip(' \t.') for line in others if line.strip(' \t.')]
        if not wrong:
            raise
        return [], [], wrong
    return missing, unexpected, []


def _shape(text: str) -> str:
    return f'({text})'


def _matching(names: Iterable[str], patterns: Sequence[str]) -> set[str]:
    """The names that a pattern matches, with the wrapper's prefix or not."""
    return {
        name
        for name in names
        for pattern in patterns if fnmatchcase(name, pattern)
        or fnmatchcase(name, DETECTOR_PREFIX +
                       pattern) or fnmatchcase(DETECTOR_PREFIX + name, pattern)
    }


def _without(weights: OrderedDict, patterns: Sequence[str]) -> OrderedDict:
    """The weights that no pattern matches."""
    for pattern in patterns:
        if not _matching(weights, [pattern]):
            raise ValueError(
                f'load_from_skip: no weight of the checkpoint matches '
                f'{pattern!r}')
    for name in _matching(weights, patterns):
        weights.pop(name)
    return weights


def _none_fits(weights: Mapping, model: nn.Module) -> str:
    return (f'weights: none of {list(weights)[:3]} ... is a weight of '
            f'{type(model).__name__}')


def _some(names: Sequence[str]) -> str:
    """The first names of a list, and how many there are more."""
    shown = ', '.join(names[:SHOWN])
    more = len(names) - SHOWN
    return f'{shown} and {more} more' if more > 0 else shown
