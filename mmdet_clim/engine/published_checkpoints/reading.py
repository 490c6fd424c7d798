# Licensed under the Apache License, Version 2.0.
"""Read files of weights without running what is in them."""
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmdet_clim.engine.checkpoints import read_checkpoint


def _latin1(text: str, encoding: str) -> bytes:
    """Bytes, as pickles of protocol 2 write them."""
    if encoding != 'latin1':
        raise pickle.UnpicklingError(
            f'encoding: expected latin1, got {encoding!r}')
    return text.encode('latin1')


def _no_bytes() -> bytes:
    """As protocol 2 writes the content of an empty array."""
    return b''


def _number(dtype: np.dtype, content: bytes) -> Any:
    """A NumPy scalar of a plain type."""
    if dtype.hasobject:
        raise pickle.UnpicklingError(
            f'NumPy scalar: expected a number, got dtype {dtype}')
    return np.frombuffer(content, dtype, count=1)[0]


class ArrayUnpickler(pickle.Unpickler):
    """Unpickles NumPy arrays and numbers in plain containers.

    Everything else that a pickle may name, which is what could run code, is
    refused with ``pickle.UnpicklingError``.
    """

    ALLOWED = {
        ('collections', 'OrderedDict'): OrderedDict,
        ('_codecs', 'encode'): _latin1,
        ('__builtin__', 'bytes'): _no_bytes,
        ('numpy', 'ndarray'): np.ndarray,
        ('numpy', 'dtype'): np.dtype,
    }
    # NumPy 2 moved its modules; a file may come from either.
    for _core in ('core', '_core'):
        ALLOWED.update({
            (f'numpy.{_core}.multiarray', '_reconstruct'):
            np.zeros(1).__reduce__()[0],
            (f'numpy.{_core}.multiarray', 'scalar'):
            _number,
            (f'numpy.{_core}.numeric', '_frombuffer'):
            np.zeros(1).__reduce_ex__(5)[0],
        })
    del _core

    def find_class(self, module: str, name: str) -> Any:
        """Only what :attr:`ALLOWED` holds."""
        try:
            return self.ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f'{module}.{name}: expected NumPy arrays and plain '
                'containers only') from None


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the weights of a checkpoint.

    Args:
        path (Path): A ``.pkl`` of Detectron2, which holds NumPy arrays, or
            what ``torch.save`` wrote. Weights are under ``model`` or
            ``state_dict``, or are all that the file holds.

    Returns:
        dict[str, Tensor]: Name to tensor, on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        pickle.UnpicklingError: If a ``.pkl`` holds anything but data.
        ValueError: If another file does, is no checkpoint or holds no
            weights, or if one of them is no tensor.
    """
    if path.suffix == '.pkl':
        with open(path, 'rb') as file:
            try:
                content = ArrayUnpickler(file, encoding='latin1').load()
            except EOFError as error:
                raise ValueError(f'{path}: cut short ({error})') from error
    else:
        content = read_checkpoint(path)
    if isinstance(content, Mapping):
        for key in ('model', 'state_dict'):
            if isinstance(content.get(key), Mapping):
                content = content[key]
                break
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f'{path}: expected names and weights, got '
                         f'{type(content).__name__}')
    return {name: _as_tensor(name, value) for name, value in content.items()}


def _as_tensor(name: Any, value: Any) -> Tensor:
    if isinstance(name, str):
        if isinstance(value, Tensor):
            return value
        if isinstance(value, (np.ndarray, np.number)) and \
                np.asarray(value).dtype.kind in 'iufb':
            # A copy: torch takes no read-only and no foreign byte order.
            value = np.asarray(value)
            return torch.from_numpy(
                value.astype(value.dtype.newbyteorder('='), copy=True))
    raise ValueError(f'{name!r}: expected the name of a tensor or an array '
                     f'of numbers, got {type(value).__name__}')
