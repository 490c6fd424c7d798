# Licensed under the Apache License, Version 2.0.
"""Files that appear whole or not at all."""
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from uuid import uuid4


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A file beside a path, which takes its place once it is written.

    Whoever reads the path finds the old file or the new one, never a part
    of one, also after a kill or a loss of power. Of several who write it at
    the same time each has a file of its own, and the last one stays.

    Args:
        path (Path): Where the file appears when the block ends without an
            error. Its folder is made where it is missing.

    Yields:
        Path: What to write. It is removed if the block ends with an error;
        what a killed process leaves there is overwritten by the next one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f'.{path.name}.writing')
    # A link that came with a folder would be written through, a pipe waited
    # for.
    if not _is_plain(beside):
        beside.unlink(missing_ok=True)
    with open(beside, 'ab') as held:
        if not _is_ours(held, beside):
            beside = path.with_name(f'.{path.name}.{uuid4().hex}.writing')
        try:
            yield beside
            with open(beside, 'rb+') as written:
                os.fsync(written.fileno())
            os.replace(beside, path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise


def _is_plain(path: Path) -> bool:
    """Whether it is a file, no link or pipe; also if there is none."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except FileNotFoundError:
        return True


def _is_ours(file: IO[bytes], path: Path) -> bool:
    """Lock an opened file, unless it is another writer's.

    The lock ends with the process, however that ends.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = os.fstat(file.fileno())
        # The other one may have been renamed since it was opened; a second
        # name is that of somebody else's file.
        return found.st_nlink == 1 and os.path.samestat(found, os.stat(path))
    except OSError:
        # Or a file system without locks.
        return False
