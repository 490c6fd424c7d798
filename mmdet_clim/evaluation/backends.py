# Licensed under the Apache License, Version 2.0.
"""Which package computes the average precision."""
import os
from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec

from mmdet_clim.checks import check_choice

#: Taken where it is installed and nothing else is asked for.
FASTEST = 'hotcoco'
# The process in which hotcoco has begun its threads.
_begun_in: list[int] = []


def choose_backend(backend: str | None, known: Iterable[str],
                   otherwise: str) -> str:
    """The package by its name, once it is known to be there.

    Args:
        backend (str, optional): What is asked for; None for the fastest.
        known (Iterable[str]): What may be asked for.
        otherwise (str): The one that is there if the fastest is not.

    Raises:
        ValueError: If it is unknown.
        ModuleNotFoundError: If it is not installed.
    """
    if backend is None:
        return FASTEST if find_spec(FASTEST) is not None else otherwise
    check_choice(tuple(known), backend=backend)
    import_module(backend)
    return backend


def threads_are_here() -> bool:
    """Whether hotcoco may be called, which happens at once.

    Its threads begin with its first use and stay. A process that is forked
    later has not got them, and would wait for them for ever.
    """
    if not _begun_in:
        _begun_in.append(os.getpid())
    return _begun_in[0] == os.getpid()
