# Licensed under the Apache License, Version 2.0.
"""Text files of people: any mark, any end of line, errors with a line."""
import codecs
import io
import operator
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

from .regular_files import open_regular

# Longest first: the mark of UTF-32 begins with that of UTF-16.
_MARKS = ((codecs.BOM_UTF8, 'utf-8'), (codecs.BOM_UTF32_LE, 'utf-32-le'),
          (codecs.BOM_UTF32_BE,
           'utf-32-be'), (codecs.BOM_UTF16_LE,
                          'utf-16-le'), (codecs.BOM_UTF16_BE, 'utf-16-be'))
# Halves of a character that JSON's escapes can write, and NUL.
_NO_TEXT = re.compile('[\ud800-\udfff\0]')
_BLOCK = 1 << 16
#: Of a text that is read as a whole, and of a line of one that is not.
MAX_TEXT_BYTES, MAX_LINE_BYTES = 1 << 32, 1 << 24


def text_encoding(start: bytes) -> tuple[str, int]:
    """The encoding that a file's first bytes tell, and their mark's length.

    A file without a mark is UTF-8, or UTF-16 where every other of its first
    bytes is NUL, as in text of Latin letters.
    """
    for mark, name in _MARKS:
        if start.startswith(mark):
            return name, len(mark)
    if len(start) >= 4 and not any(start[1:64:2]) and all(start[:64:2]):
        return 'utf-16-le', 0
    if len(start) >= 4 and not any(start[:64:2]) and all(start[1:64:2]):
        return 'utf-16-be', 0
    return 'utf-8', 0


def decode_text(data: bytes, where: str) -> str:
    """The text of a file's bytes.

    It may begin with the mark of UTF-8, UTF-16 or UTF-32; UTF-16 of Latin
    letters is known without one. Every end of line (CR LF, CR) becomes LF.

    Args:
        data (bytes): The whole of the file.

    Raises:
        ValueError: If it is no such text; the message names the line.
    """
    encoding, length = text_encoding(data)
    try:
        text = data[length:].decode(encoding)
    except UnicodeDecodeError as error:
        raise _no_text(error, where) from error
    if '\0' in text:
        raise nul_error(where, text[:text.index('\0')].count('\n') + 1)
    return _with_lf(text)


def nul_error(where: str | Path, line: int) -> ValueError:
    """The error of a NUL byte in a line."""
    return ValueError(f'{where}: line {line}: expected text in UTF-8, got a '
                      'NUL byte')


def _with_lf(text: str) -> str:
    return text.replace('\r\n', '\n').replace('\r', '\n')


def _no_text(error: UnicodeDecodeError,
             where: str,
             line: int = 1) -> ValueError:
    """The error of bytes that cannot be decoded, with their line.

    Args:
        line (int): The number of the first line among the bytes.
    """
    data, encoding = error.object, error.encoding
    line += _with_lf(data[:error.start].decode(encoding,
                                               'replace')).count('\n')
    near = data[max(0, error.start - 20):error.end + 20].decode('latin-1')
    return ValueError(
        f'{where}: line {line}: expected text in {encoding.upper()}, got the '
        f'byte {data[error.start:][:1].hex()} in {near!r} (as Latin-1 reads '
        'it). Save the file as UTF-8')


def read_text(path: str | Path) -> str:
    """Read a text file as a whole; see :func:`decode_text`.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is no text; the message names file and line.
    """
    return decode_text(read_text_bytes(path), str(path))


def read_text_bytes(path: str | Path) -> bytes:
    """Read a text file as a whole, as long as it looks like text.

    Raises:
        FileNotFoundError: If there is none.
        OSError: If it is no regular file.
        ValueError: If it is longer than 4 GiB, or has a NUL byte where no
            text has one: the holes of a sparse file are nothing else.
    """
    data = bytearray()
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > MAX_TEXT_BYTES:
            raise ValueError(f'{path}: longer than {MAX_TEXT_BYTES} bytes, '
                             'expected less of a text')
        while len(data) <= MAX_TEXT_BYTES:
            block = file.read(_BLOCK)
            if not block:
                break
            data += block
            if b'\0' in block and text_encoding(bytes(
                    data[:64]))[0] == 'utf-8':
                raise nul_error(path,
                                data[:data.index(b'\0')].count(b'\n') + 1)
    return bytes(data)


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file that may be too long for the memory.

    Only LF, CR LF and CR end a line: others of Unicode's, such as U+2028,
    stand in captions.

    Args:
        path (str | Path): The file; see :func:`decode_text`.

    Yields:
        tuple[int, str]: Its number from 1, and the line without its end.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is no text; the message names file and line.
    """
    with open_regular(path) as file:
        encoding, length = text_encoding(file.read(64))
        file.seek(length)
        lines = io.TextIOWrapper(file, encoding)
        for number in count(1):
            try:
                line = lines.readline(MAX_LINE_BYTES)
            except UnicodeDecodeError as error:
                raise _no_text(error, str(path), number) from error
            if not line:
                return
            if len(line) == MAX_LINE_BYTES:
                raise ValueError(
                    f'{path}: line {number}: longer than {MAX_LINE_BYTES} '
                    'bytes, expected a line of text')
            if '\0' in line:
                raise nul_error(path, number)
            yield number, line.removesuffix('\n')


def whole_characters(text: str) -> str:
    """A text without halves of characters and NUL.

    JSON can write half of a character, as tools do that cut a caption within
    an emoji; no encoder or file takes it.

    Args:
        text (str): Such as a caption.
    """
    return _NO_TEXT.sub('', text)


def clean_captions(captions: Sequence[str], dropped: Counter) -> list[str]:
    """Captions of whole characters, without blanks around them.

    Args:
        dropped (Counter): Counts the captions that lost characters, and those
            that are empty, which are left out.
    """
    whole = list(map(whole_characters, captions))
    kept = [caption.strip() for caption in whole if caption.strip()]
    broken = sum(map(operator.ne, whole, captions))
    # Counts of 0 are not kept.
    dropped += Counter({
        'broken characters in captions': broken,
        'empty captions': len(captions) - len(kept)
    })
    return kept


def is_text(text: str) -> bool:
    """Whether a name is whole characters, as UTF-8 can write them.

    Names of files that are not UTF-8 are not.

    Args:
        text (str): Such as the name of a file.
    """
    return _NO_TEXT.search(text) is None
