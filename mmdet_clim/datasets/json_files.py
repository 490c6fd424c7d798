# Licensed under the Apache License, Version 2.0.
"""Reading of JSON, with errors that name file and line."""
import json
from collections import Counter
from pathlib import Path
from typing import Any

from .text_files import decode_text, read_text_bytes


def parse_json(text: str | bytes,
               where: str,
               unique_keys: bool = False) -> Any:
    """Parse JSON, naming the place where it is none.

    Args:
        text (str | bytes): The JSON; bytes of a file may be of UTF-16 or
            begin with a mark.
        unique_keys (bool): Whether no object may have a key twice, of which
            otherwise the last counts.

    Raises:
        ValueError: If it is not valid JSON, or nested too deeply.
    """
    if isinstance(text, bytes):
        text = decode_text(text, where)
    try:
        return json.loads(
            text, object_pairs_hook=_unique if unique_keys else None)
    except RecursionError:
        raise ValueError(f'{where}: not valid JSON (nested too deeply)') \
            from None
    except ValueError as error:
        raise ValueError(f'{where}: not valid JSON ({error})') from error


def _unique(pairs: list[tuple[str, Any]]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f'duplicate key {twice!r}')
    return found


def parse_object(text: str | bytes, where: str) -> dict:
    """Parse a JSON object, naming the place where it is none.

    Raises:
        ValueError: If it is not valid JSON, or no object.
    """
    parsed = parse_json(text, where)
    if not isinstance(parsed, dict):
        raise ValueError(
            f'{where}: expected a JSON object, got {type(parsed).__name__}')
    return parsed


def read_json(path: str | Path) -> Any:
    """Read a JSON file as a whole.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is not valid JSON, or nested too deeply.
    """
    return parse_json(read_text_bytes(path), str(path))
