# Licensed under the Apache License, Version 2.0.
"""What the arguments of a config may be."""
import math
import sys
from collections.abc import Collection, Iterable, Sequence
from typing import Any


def check_range(least: float,
                most: float = math.inf,
                without: Sequence[float] = (),
                **values: float | None) -> None:
    """Refuse arguments that are out of their range.

    Args:
        least (float): The smallest number that is allowed.
        most (float): The largest one.
        without (Sequence[float]): Numbers between them that are not allowed,
            such as one of the two.
        **values: Arguments by their names; None is none.

    Raises:
        ValueError: If one is not in [least, most], is in ``without``, or is
            no number.
    """
    for name, value in values.items():
        if value is not None and (not _is_within(least, value, most)
                                  or value in without):
            allowed = f'at least {least}' if most == math.inf else \
                f'{least} to {most}'
            if without:
                allowed += f', but not {" or ".join(map(str, without))}'
            raise ValueError(f'{name}: expected {allowed}, got {value!r}')


def _is_within(least: float, value: Any, most: float) -> bool:
    """Whether it is a number from one to another."""
    try:
        return bool(least <= value <= most)
    except TypeError:  # a text, a list or None
        return False


def check_finite(**values: float | None) -> None:
    """Refuse arguments that are no finite numbers.

    Args:
        **values: Arguments by their names; None is none.

    Raises:
        ValueError: If one is something else.
    """
    most = sys.float_info.max
    for name, value in values.items():
        if value is not None and not _is_within(-most, value, most):
            raise ValueError(
                f'{name}: expected a finite number, got {value!r}')


def check_positive(**values: float) -> None:
    """Refuse arguments that are no finite numbers above 0.

    Args:
        **values: Arguments by their names, which must be given.

    Raises:
        ValueError: If one is something else.
    """
    for name, value in values.items():
        if not _is_within(sys.float_info.min, value, sys.float_info.max):
            raise ValueError(
                f'{name}: expected a positive number, got {value!r}')


def check_loss_names(what: str, names: Iterable[str]) -> None:
    """Refuse names of objectives or branches that MMEngine would sum.

    Args:
        what (str): What has these names.
        names (Iterable[str]): MMEngine takes every value whose name holds
            "loss" for one.

    Raises:
        ValueError: If a name holds that or a dot.
    """
    for name in names:
        if 'loss' in name or '.' in name:
            raise ValueError(f'{what}: expected a name without "loss" and '
                             f'without a dot, got {name!r}')


def check_choice(choices: Collection, **values: Any) -> None:
    """Refuse arguments that are none of the choices.

    Args:
        choices (Collection): What is allowed.
        **values: Arguments by their names.

    Raises:
        ValueError: If one is something else.
    """
    for name, value in values.items():
        if value not in choices:
            raise ValueError(
                f'{name}: expected one of {tuple(choices)}, got {value!r}')


def check_whole(**values: Any) -> None:
    """Refuse arguments that are no whole numbers of at least 1.

    Args:
        **values: Arguments by their names; None is none.

    Raises:
        ValueError: If one is something else.
    """
    for name, value in values.items():
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f'{name}: expected a whole number of at least 1, '
                             f'got {value!r}')


def check_size(**values: Sequence[float] | None) -> None:
    """Refuse arguments that are no size of an image.

    Args:
        **values: Arguments by their names; None is none.

    Raises:
        ValueError: If one has not two numbers of at least 1.
    """
    for name, value in values.items():
        if value is not None and (len(value) != 2 or min(value) < 1):
            raise ValueError(f'{name}: expected (width, height) of at least '
                             f'1, got {value}')
