# Licensed under the Apache License, Version 2.0.
"""Checks of what a JSON file holds, with errors that name the place."""
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

#: Ids are integers of 64 bits.
IDS = range(-2**63, 2**63)
#: Beyond it a coordinate is no place in an image.
LIMIT = 1e9
# A few aliases of YAML may stand for gigabytes.
_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = 200


def as_id(value: Any) -> int | None:
    """An id as an integer, None if it is none.

    Args:
        value: An integer, or one that was written as text or as a float:
            ``7``, ``'7'``, ``'000007'``, ``7.0``.
    """
    if type(value) is int:
        # As most are.
        return value if value in IDS else None
    if isinstance(value, str) and value.strip().isascii() \
            and value.strip().lstrip('-').isdecimal() and len(value) < 20:
        try:
            value = int(value)
        except ValueError:
            return None
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if value in IDS else None


def as_number(value: Any) -> float | None:
    """A finite number, also one written as text, None if it is none.

    Args:
        value: Such as ``7``, ``7.5``, ``'7.5'``.
    """
    if isinstance(value, str):
        # Python takes '1_0' for 10.
        try:
            value = float(value) if '_' not in value else None
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if -LIMIT <= value <= LIMIT else None


def wrong_value(where: str, key: str, value: Any, expected: str) -> ValueError:
    """The error of a value: its place and key, and what was expected."""
    shown = _SHOWN.repr(value)
    shown = shown if len(shown) <= 200 else f'{shown[:200]}...'
    return ValueError(f'{where}: key {key!r} is {shown}, expected {expected}')


def check_object(entry: Any,
                 where: str,
                 keys: Sequence[str] = (),
                 form: str = '') -> None:
    """Refuse what is no object, or lacks a key.

    Args:
        form (str): What the object looks like, for the message.

    Raises:
        ValueError: If it is something else, or a key is missing.
    """
    if not isinstance(entry, dict):
        raise ValueError(
            f'{where} is {_SHOWN.repr(entry):.200}, expected an object{form}')
    for key in keys:
        if key not in entry:
            raise ValueError(f'{where}: key {key!r} is missing, it has '
                             f'{sorted(map(str, entry))}')


def typed_value(raw: Mapping, key: str, kind: type, where: str) -> Any:
    """The value of a key, which must be there and of one type.

    Args:
        kind (type): ``int``, ``str``, ``list`` or ``dict``; true and false
            are no ``int``, nor is what takes more than 64 bits.

    Raises:
        ValueError: If the key is missing or the value has another type.
    """
    if key not in raw:
        raise ValueError(f'{where}: key {key!r} is missing, expected '
                         f'{kind.__name__}')
    value = raw[key]
    if not isinstance(value, kind) or isinstance(
            value, bool) or kind is int and value not in IDS:
        raise wrong_value(where, key, value, kind.__name__)
    return value


def typed_id(raw: Mapping, key: str, where: str) -> int:
    """The integer under a key, also one that was written as text.

    Raises:
        ValueError: If the key is missing or the value is no integer.
    """
    value = as_id(raw.get(key))
    return typed_value(raw, key, int, where) if value is None else value


def typed_side(raw: Mapping, key: str, where: str) -> int:
    """The side of an image in pixels under a key, 0 if absent.

    Raises:
        ValueError: If the value is no integer, or none of an image.
    """
    if raw.get(key) is None:
        return 0
    side = typed_id(raw, key, where)
    if not 1 <= side < LIMIT:
        raise wrong_value(where, key, side,
                          f'at least 1 and less than {LIMIT:.0f}')
    return side


def typed_list(raw: Mapping, key: str, kind: type, where: str) -> list:
    """The list under a key, empty if absent, with entries of one type.

    Raises:
        ValueError: If the value is no list or an entry has another type.
    """
    values = raw.get(key)
    if values is None:
        return []
    if not isinstance(values, (list, tuple)):
        raise wrong_value(where, key, values, f'a list of {kind.__name__}')
    for value in values:
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(
                f'{where}: key {key!r} contains {value!r}, expected '
                f'a list of {kind.__name__}')
    return list(values)


def typed_ids(raw: Mapping, key: str, where: str) -> list[int]:
    """The list of integers under a key, also of ones written as text.

    Args:
        key (str): One of its keys; null counts as an empty list.

    Raises:
        ValueError: If it is no list, or an entry is no integer.
    """
    values = [] if raw.get(key) is None else typed_value(raw, key, list, where)
    wrong = [value for value in values if as_id(value) is None]
    if wrong:
        raise ValueError(f'{where}: key {key!r} contains {wrong[0]!r}, '
                         'expected a list of integers')
    return [number for number in map(as_id, values) if number is not None]


def joined_captions(raw: Mapping, where: str) -> list[str]:
    """``captions`` and ``caption`` of one object, as one list.

    Args:
        raw (Mapping): An object of the file, in which each is a text, a list
            of texts, or null. Without either, ``text`` is a caption, as
            Hugging Face names it.

    Raises:
        ValueError: If one of them is something else.
    """
    keys: tuple[str, ...] = ('captions', 'caption')
    if not any(key in raw for key in keys):
        keys = ('text', )
    found: list[str] = []
    for key in keys:
        value = raw.get(key)
        if isinstance(value, str):
            found.append(value)
        elif value is None or isinstance(value, (list, tuple)):
            found += typed_list(raw, key, str, where)
        else:
            raise wrong_value(where, key, value, 'a text or a list of texts')
    return found
