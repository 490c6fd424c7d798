# Licensed under the Apache License, Version 2.0.
"""What a zip of arrays takes, before it is read."""
import os
from collections.abc import Collection
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile, is_zipfile

import numpy as np
import torch

from .regular_files import open_regular

#: Of the arrays in a file of embeddings: 262,144 vectors of width 1024.
MAX_ARRAY_BYTES = 1 << 30


def read_arrays(path: str | Path,
                names: Collection[str],
                limit: int = MAX_ARRAY_BYTES) -> dict[str, np.ndarray]:
    """Read arrays of numbers and strings from a ``.npz``.

    A compressed file of 4 MB may hold 4 GB: the headers of its members say
    so.

    Args:
        names (Collection[str]): The arrays that it must have. Others are not
            read.
        limit (int): The most bytes of them all.

    Returns:
        dict[str, ndarray]: By name.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it is no regular file.
        ValueError: If it is no such archive, or holds more or something else.
    """
    with open_regular(path) as file:
        try:
            with ZipFile(file) as archive:
                sizes = {
                    member.filename.removesuffix('.npy'): member.file_size
                    for member in archive.infolist()
                }
        except (BadZipFile, ValueError, NotImplementedError) as error:
            raise ValueError(f'{path}: expected a .npz ({error})') from error
        missing = sorted(set(names) - set(sizes))
        if missing:
            raise ValueError(f'{path}: expected the arrays {sorted(names)}, '
                             f'missing: {missing}')
        total = sum(sizes[name] for name in names)
        if total > limit:
            raise ValueError(f'{path}: arrays of {total} bytes, expected at '
                             f'most {limit}')
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return {name: _checked(arrays, name, sizes) for name in names}
        except Exception as error:
            # zlib's, zipfile's and NumPy's own, and the MemoryError of a
            # header that claims more than its member has.
            raise ValueError(f'{path}: expected arrays of numbers and '
                             f'strings ({type(error).__name__}: {error})') \
                from error


def _checked(arrays, name: str, sizes: dict[str, int]) -> np.ndarray:
    """An array whose header is not larger than its member."""
    with arrays.zip.open(f'{name}.npy') as member:
        version = np.lib.format.read_magic(member)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0) else np.lib.format.read_array_header_2_0)
        shape, _, dtype = read(member)
    claimed = int(np.prod([int(side)
                           for side in shape], dtype=object)) * dtype.itemsize
    if not 0 <= claimed <= sizes[name]:
        raise ValueError(
            f'{name}: its header says {shape} {dtype}, but the file '
            f'has {sizes[name]} bytes')
    return arrays[name]


def check_stored(path: str | Path) -> None:
    """Raise where a checkpoint takes more than its file, or is no file.

    ``torch.save`` compresses nothing; what is compressed in such a zip was
    put there to fill the memory.

    Args:
        path (str or Path): The checkpoint; files of torch before 1.6 are no
            zips and are left to ``torch.load``.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it is no regular file.
        ValueError: If it is compressed, or its members lie over each other.
    """
    with open_regular(path) as file:
        if file.read(4) != b'PK\x03\x04':
            return
        try:
            with ZipFile(file) as archive:
                members = archive.infolist()
        except (BadZipFile, ValueError, NotImplementedError):
            # What torch.load says of it is better.
            return
        size = os.fstat(file.fileno()).st_size
    if any(member.compress_type != ZIP_STORED
           for member in members) or sum(member.file_size
                                         for member in members) > size:
        raise ValueError(f'{path}: expected weights as torch.save writes '
                         'them, got a compressed archive')


def load_stored(path: str | Path, mmap: bool = False) -> Any:
    """``torch.load`` of a file on a disk, which may hold nothing but data.

    Args:
        mmap (bool): Whether to leave tensors in the file.

    Returns:
        Any: What it holds, on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it is no regular file.
        ValueError: If it is broken; see also :func:`check_stored`.
        pickle.UnpicklingError: If it holds more than data.
    """
    check_stored(path)
    try:
        return torch.load(
            path,
            map_location='cpu',
            weights_only=True,
            # Files of torch before 1.6 can not be mapped.
            mmap=mmap and is_zipfile(path))
    except (OSError, UnpicklingError):
        raise
    except Exception as error:
        # Of broken files torch raises, beside EOFError and RuntimeError,
        # KeyError, IndexError and AssertionError.
        raise ValueError(
            f'checkpoint: {path} is not a checkpoint, or cut short '
            f'({str(error).partition(chr(10))[0]})') from error
