# Licensed under the Apache License, Version 2.0.
"""Files that are made of a source file once, for all who read it."""
import hashlib
import logging
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout
from mmengine.logging import print_log

from mmdet_clim.files import atomic_path
from mmdet_clim.version import __version__

#: The folder of what is made, beside the source.
FOLDER = '.mmdet_clim'
#: Counted up whenever the same source gives another file.
REVISION = 4
# Of a source that takes more than a few seconds.
_LARGE = 50_000_000
# Two changes within a tick of the kernel's clock have one time.
_TICK_NS = 20_000_000
# What is left of the 255 bytes of a file name for that of the source.
_NAME_BYTES = 150


def made_once(source: str | Path, name: str, make: Callable[[Path],
                                                            None]) -> Path:
    """A file that is made of another one, if it was not made before.

    It lies in ``.mmdet_clim/`` beside the source; where nothing can be
    written there, or that is a link, which may have come with the data, below
    ``$XDG_CACHE_HOME/mmdet_clim`` (``~/.cache``). Size
    and time of change of the source, and the version of this package, are a
    part of its name: of a changed source another one is made, and the old one
    removed. Of several processes one makes it, and the others wait.

    Args:
        source (str | Path): A local file.
        name (str): What is made of it, with all that decides its content;
            the name of a file.
        make (Callable[[Path], None]): Writes it to the path that it gets.

    Raises:
        FileNotFoundError: If there is no source.
        OSError: If no folder can be written to.
        RuntimeError: If the source changes while it is read.
    """
    source = Path(os.path.abspath(source))
    label = source.name
    if len(os.fsencode(label)) > _NAME_BYTES:
        label = _digest(os.fsencode(label))
    stamp = _stamp(source)
    folders = [
        source.parent / FOLDER,
        cache_root() / _digest(os.fsencode(source.parent))
    ]
    if folders[0].is_symlink():
        print_log(
            f'{folders[0]}: is a symbolic link, which is not followed; '
            f'the cache of {source.name} goes to {folders[1]}', 'current',
            logging.WARNING)
        del folders[0]
    for place in folders:
        if (place / f'{label}.{stamp}.{name}').is_file():
            return place / f'{label}.{stamp}.{name}'
    folder = next(filter(_can_be_written, folders), None)
    if folder is None:
        raise OSError(
            f'{source}: its cache can be written neither to '
            f'{" nor to ".join(map(str, folders))}; set XDG_CACHE_HOME to a '
            'writable folder')
    lock = FileLock(folder / f'{label}.{name}.lock')
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        print_log(f'{source}: another process is reading it, waiting',
                  'current')
        held = lock.acquire()
    with held:
        stamp = _settled_stamp(source)
        made = folder / f'{label}.{stamp}.{name}'
        if made.is_file():
            return made
        size = source.stat().st_size
        if size > _LARGE:
            print_log(
                f'{source}: reading its {size / 1e6:.0f} MB, which is done '
                f'once; the result is cached in {folder}', 'current')
        with atomic_path(made) as beside:
            make(beside)
            if _stamp(source) != stamp:
                raise RuntimeError(f'{source}: changed while it was read; '
                                   'start again when it is complete')
        old = re.compile(
            rf'\.?{re.escape(label)}\.(?!{stamp})[0-9a-f]{{16}}\..*')
        for other in folder.iterdir():
            if old.fullmatch(other.name):
                other.unlink(missing_ok=True)
        return made


def checked_once(file: str | Path, check: Callable[[], None]) -> None:
    """Check a file, unless this user's cache knows that it has passed.

    What lies beside data may have come with it. The cache has not; and a file
    that is put in the place of another one has another time of change of its
    inode, which no archive brings along.

    Args:
        check (Callable[[], None]): Raises if it is not as it should be.
    """
    path = os.path.realpath(file)
    stat = os.stat(path)
    mark = cache_root() / 'checked' / _digest(
        repr((path, stat.st_ino, stat.st_size, stat.st_mtime_ns,
              stat.st_ctime_ns)).encode('utf-8', 'surrogateescape'))
    if mark.is_file():
        return
    check()
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError:
        # Then the next process checks it again.
        return


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _stamp(source: Path) -> str:
    """What tells a source from a changed one."""
    stat = source.stat()
    return _digest(
        repr((stat.st_size, stat.st_mtime_ns, __version__, REVISION)).encode())


def _settled_stamp(source: Path) -> str:
    """The same, once a further change would have another time."""
    while 0 <= time.time_ns() - source.stat().st_mtime_ns < _TICK_NS:
        time.sleep(_TICK_NS / 1e9)
    return _stamp(source)


def cache_root() -> Path:
    """The folder of what can be made again."""
    root = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    return Path(root, 'mmdet_clim')


def _can_be_written(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print_log(f'{folder}: {error.strerror}', 'current', logging.DEBUG)
        return False
    return os.access(folder, os.W_OK | os.X_OK)
