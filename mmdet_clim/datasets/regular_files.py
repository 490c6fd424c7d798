# Licensed under the Apache License, Version 2.0.
"""Reading files whose names came with data.

A name in an annotation file may be that of a device, of a pipe that nobody
writes to, or of a file that is larger than the memory.
"""
import os
import stat
from pathlib import Path
from typing import IO

#: Of an image or of the text of one: four bytes for each of 64 million
#: pixels.
MAX_FILE_BYTES = 256_000_000
_KINDS = {
    stat.S_IFDIR: 'a folder',
    stat.S_IFIFO: 'a pipe',
    stat.S_IFSOCK: 'a socket',
    stat.S_IFCHR: 'a device',
    stat.S_IFBLK: 'a device',
}


def open_regular(path: str | Path) -> IO[bytes]:
    """Open a file that lies on a disk, and nothing else.

    Raises:
        FileNotFoundError: If there is none.
        OSError: If it can not be opened, is no regular file, or no file can
            have such a name.
    """
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
    except ValueError as error:
        # A NUL, or half a surrogate pair.
        raise OSError(f'{str(path)!r}: not a valid file name '
                      f'({error})') from error
    if kind != stat.S_IFREG:
        raise OSError(f'{path}: expected a file, got '
                      f'{_KINDS.get(kind, "something else")}')
    return open(path, 'rb')


def read_regular(path: str | Path,
                 offset: int = 0,
                 size: int | None = None,
                 limit: int = MAX_FILE_BYTES) -> bytes:
    """Read a file, or a part of it.

    Args:
        offset (int): Where to start, in bytes.
        size (int, optional): How many bytes; None reads to the end.
        limit (int): The largest number of bytes to read.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: See :func:`open_regular`; or if there are more bytes than
            ``limit``, or the part is not within the file.
    """
    with open_regular(path) as file:
        # What files of /proc have beyond their size may never end.
        end = os.fstat(file.fileno()).st_size
        if size is None:
            size = end - offset
        if offset < 0 or size < 0 or offset + size > end:
            raise OSError(f'{path}: expected bytes {offset} to '
                          f'{offset + size} within its {end}')
        if size > limit:
            raise OSError(f'{path}: {size} bytes, expected at most {limit}')
        file.seek(offset)
        return file.read(size)
