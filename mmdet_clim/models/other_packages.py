# Licensed under the Apache License, Version 2.0.
"""Weights in installed packages, and what packages print meanwhile."""
import importlib.util
import logging
from contextlib import contextmanager
from pathlib import Path
from typing import Iterable, Iterator


def package_folder(package: str) -> Path:
    """The folder of an installed package, which is not imported.

    Args:
        package (str): Import name.

    Raises:
        FileNotFoundError: If there is none.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(
            f'package={package!r} is not an installed Python package '
            f'(pip install {package.replace("_", "-")})')
    return Path(spec.submodule_search_locations[0])


def the_only_one(package: str, found: Iterable[Path], what: str,
                 argument: str) -> Path:
    """What a package has one of.

    Args:
        package (str): Its import name.
        found (Iterable[Path]): All that there is.
        what (str): What it is, in the plural.
        argument (str): By which a config names one of several.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If there are several.
    """
    places = sorted(set(found))
    if not places:
        raise FileNotFoundError(f'package={package!r}: expected {what} in '
                                f'{package_folder(package)}, found none')
    if len(places) > 1:
        raise ValueError(
            f'package={package!r} contains several {what}, give one '
            f'of them as {argument}: {list(map(str, places))}')
    return places[0]


@contextmanager
def errors_alone(logger_name: str) -> Iterator[None]:
    """No warnings of one of Python's loggers."""
    logger = logging.getLogger(logger_name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
