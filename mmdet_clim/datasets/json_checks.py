# Licensed under the Apache License, Version 2.0.
"""Checks of what a JSON file holds, with errors that name the place."""
from typing import Any, List, Mapping


def typed_value(raw: Mapping, key: str, kind: type, where: str) -> Any:
    """The value of a key, which must be there and of one type.

    Args:
        raw (Mapping): An object of the file.
        key (str): One of its keys.
        kind (type): ``int``, ``str``, ``list`` or ``dict``; true and false
            are no ``int``.
        where (str): File and place, for the error.

    Raises:
        ValueError: If the key is missing or the value has another type.
    """
    if key not in raw:
        raise ValueError(f'{where}: key {key!r} is missing, expected '
                         f'{kind.__name__}')
    value = raw[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f'{where}: key {key!r} is {value!r}, expected '
                        f'{kind.__name__}')
    return value


def typed_list(raw: Mapping, key: str, kind: type, where: str) -> list:
    """The list under a key, empty if absent, with entries of one type.

    Args:
        raw (Mapping): An object of the file.
        key (str): One of its keys.
        kind (type): Of the entries.
        where (str): File and place, for the error.

    Raises:
        ValueError: If the value is no list or an entry has another type.
    """
    values = raw.get(key)
    if values is None:
        return []
    if not isinstance(values, (list, tuple)):
        raise ValueError(f'{where}: key {key!r} is {values!r}, expected a '
                        f'list of {kind.__name__}')
    for value in values:
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f'{where}: key {key!r} holds {value!r}, expected '
                            f'a list of {kind.__name__}')
    return list(values)


def joined_captions(raw: Mapping, where: str) -> List[str]:
    """``captions`` and ``caption`` of one object, as one list.

    Args:
        raw (Mapping): An object of the file; both keys are optional.
        where (str): File and place, for the error.

    Raises:
        ValueError: If one of them has another type.
    """
    captions = typed_list(raw, 'captions', str, where)
    if raw.get('caption') is not None:
        captions.append(typed_value(raw, 'caption', str, where))
    return captions
