# Licensed under the Apache License, Version 2.0.
"""JSON objects that are larger than the memory, entry after entry."""
import io
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdet_clim.progress import progress

from .regular_files import open_regular
from .text_files import nul_error, read_text, text_encoding

#: Of one value that is not a list, and of one entry of a list.
MAX_VALUE_CHARS = 1 << 28
_BLOCK = 1 << 20
_NO_BLANK = re.compile(r'[^ \t\n\r]')
_DELIMITERS = ',]} \t\n\r'
# Beyond so many characters before the end of what was read, an error is one:
# the longest word that can be cut off is "-Infinity".
_CUT_OFF = 12
_KINDS = {
    '{': 'dict',
    '[': 'list',
    '"': 'str',
    't': 'bool',
    'f': 'bool',
    'n': 'NoneType',
    '': 'nothing'
}


@dataclass
class _Window:
    """The part of a text that is being decoded, by Python's own decoder.

    Args:
        path (str): Its file, for errors.
        on_read (Callable[[int], Any]): Gets the number of characters of each
            block that is read.
    """

    file: io.TextIOBase
    path: str
    on_read: Callable[[int], Any]

    def __post_init__(self) -> None:
        self._text, self._place, self._line = '', 0, 1
        self._complete = False
        self._decode = json.JSONDecoder().raw_decode

    def _read(self, size: int) -> None:
        """Drop what was decoded, and read on."""
        self._line += self._text.count('\n', 0, self._place)
        self._text, self._place = self._text[self._place:], 0
        try:
            block = self.file.read(size)
        except UnicodeDecodeError:
            # It says which line.
            read_text(self.path)
            raise
        if '\0' in block:
            before = (self._text + block).partition('\0')[0]
            raise nul_error(self.path, self._line + before.count('\n'))
        self.on_read(len(block))
        self._text += block
        self._complete = not block

    def wrong(self, message: str, place: int | None = None) -> ValueError:
        """An error, with the line of a place in the window."""
        place = self._place if place is None else place
        line = self._line + self._text.count('\n', 0, place)
        return ValueError(f'{self.path}: not valid JSON (line {line}: '
                          f'{message})')

    def ahead(self) -> str:
        """The next character that is no blank, '' at the end."""
        while True:
            found = _NO_BLANK.search(self._text, self._place)
            self._place = len(self._text) if found is None else found.start()
            if found is not None:
                return found.group()
            if self._complete:
                return ''
            self._read(_BLOCK)

    def take(self, wanted: str) -> str:
        """One of some characters, which must come next."""
        found = self.ahead()
        if not found or found not in wanted:
            raise self.wrong(f"expected {' or '.join(map(repr, wanted))}, got "
                             f"{found!r}")
        self._place += 1
        return found

    def end(self) -> None:
        """Raise if anything comes next."""
        if self.ahead():
            raise self.wrong('expected nothing after the whole value')

    def value(self) -> Any:
        """The next value as a whole."""
        self.ahead()
        while True:
            try:
                value, end = self._decode(self._text, self._place)
            except RecursionError:
                raise self.wrong('nested too deeply') from None
            except json.JSONDecodeError as error:
                whole = error.pos < len(self._text) - _CUT_OFF and \
                    not error.msg.startswith('Unterminated string')
                if whole or self._complete:
                    raise self.wrong(error.msg, error.pos) from error
            else:
                # A number may go on behind the window.
                if self._complete or end < len(
                        self._text) and (self._text[end] in _DELIMITERS or
                                         not isinstance(value, (int, float))):
                    self._place = end
                    return value
            if len(self._text) - self._place > MAX_VALUE_CHARS:
                raise self.wrong(f'a value of more than {MAX_VALUE_CHARS} '
                                 'characters')
            # Twice as much each time: it begins anew.
            self._read(max(_BLOCK, len(self._text)))


class JSONContent:
    """What a JSON file holds, in memory, with the members of a `JSONObject`.

    Args:
        content: Any value.
    """

    def __init__(self, content: Any) -> None:
        self.content = content
        self.kind = type(content).__name__

    def members(self) -> Iterator[tuple[str, int | None, Any]]:
        """See :meth:`JSONObject.members`."""
        for key, value in self.content.items():
            if isinstance(value, list):
                yield key, None, []
                for number, entry in enumerate(value):
                    yield key, number, entry
            else:
                yield key, None, value


class JSONObject:
    """The members of the object that a JSON file holds.

    Args:
        path (str | Path): The file, of any text that
            :func:`~.text_files.decode_text` reads.

    Raises:
        FileNotFoundError: If there is none.
        OSError: If it is no regular file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        with _opened(self.path) as window:
            found = window.ahead()
        #: The Python type of what the file holds: 'dict' for an object.
        self.kind = _KINDS.get(found, 'int')

    def members(self) -> Iterator[tuple[str, int | None, Any]]:
        """Its members, in the order of the file.

        Yields:
            tuple: Of a list, first the key, None and an empty list, then for
            each entry the key, its number and the entry. Of any other value
            the key, None and the value.

        Raises:
            ValueError: If it is no valid JSON, nested too deeply or no
                object, or a key stands twice; the message names the line.
        """
        if self.kind != 'dict':
            raise ValueError(f'{self.path}: expected a JSON object, got '
                             f'{self.kind}')
        seen = set()
        with _opened(self.path) as window:
            window.take('{')
            end = window.ahead()
            while end != '}':
                if window.ahead() != '"':
                    raise window.wrong('expected a key in quotes')
                key = window.value()
                if key in seen:
                    raise window.wrong(f'duplicate key {key!r}')
                seen.add(key)
                window.take(':')
                if window.ahead() == '[':
                    yield key, None, []
                    for number, entry in enumerate(_entries(window)):
                        yield key, number, entry
                else:
                    yield key, None, window.value()
                end = window.take(',}')
            if not seen:
                window.take('}')
            window.end()

    def entries(self, key: str) -> Iterator[tuple[int, Any]]:
        """The entries of one list.

        Args:
            key (str): Of the object. Where the file is no object but a list,
                it is that one.

        Yields:
            tuple[int, Any]: Number and entry.
        """
        if self.kind == 'list':
            with _opened(self.path) as window:
                yield from enumerate(_entries(window))
                window.end()
            return
        for found, number, entry in self.members():
            if found == key and number is not None:
                yield number, entry


def _entries(window: _Window) -> Iterator[Any]:
    """The entries of a list that comes next."""
    window.take('[')
    if window.ahead() == ']':
        window.take(']')
        return
    while True:
        yield window.value()
        if window.take(',]') == ']':
            return


@contextmanager
def _opened(path: str) -> Iterator[_Window]:
    """A window at the start of a file, with a progress bar."""
    with open_regular(path) as file, progress(
            f'{Path(path).name}: read',
            os.fstat(file.fileno()).st_size,
            in_bytes=True) as advance:
        encoding, length = text_encoding(file.read(64))
        file.seek(length)
        # Ends of lines are blanks, and are left as they are.
        yield _Window(
            io.TextIOWrapper(file, encoding, newline=''), path, advance)
