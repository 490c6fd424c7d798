# Licensed under the Apache License, Version 2.0.
"""Files that appear whole or not at all, and folders for one process."""
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn

from mmdet_clim.files import atomic_path


@contextmanager
def whole_file(path: Path) -> Iterator[IO[str]]:
    """A text file of :func:`~mmdet_clim.files.atomic_path`, in UTF-8."""
    with atomic_path(path) as beside, open(
            beside, 'w', encoding='utf-8', newline='\n') as file:
        yield file


def write_json(path: Path, content: Any, indent: int = 0) -> None:
    """Write a small JSON file, whole or not at all.

    Args:
        indent (int): Blanks per level; 0 writes one line.
    """
    with whole_file(path) as file:
        json.dump(content, file, indent=indent or None)
        file.write('\n')


@contextmanager
def locked_folder(folder: Path, purpose: str) -> Iterator[Path]:
    """A folder, made if need be, that one process at a time may fill.

    The lock ends with the process, however that ends.

    Args:
        purpose (str): What another process would be doing in it, for the
            error.

    Raises:
        RuntimeError: If another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(f'{purpose} (it fills {folder})') from None
        yield folder
    finally:
        os.close(lock)


def empty_folder(folder: Path) -> None:
    """Remove all that a folder holds."""
    for left in folder.iterdir():
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()


def _raise(error: OSError) -> NoReturn:
    raise error


def linked_folders(
    folder: str | Path,
    on_error: Callable[[OSError], None] = _raise
) -> Iterator[tuple[str, list[str]]]:
    """A folder and those below it, with the names of their files.

    A link to a folder is followed, unless it leads back to one that was seen.

    Args:
        on_error (Callable): Gets the error of a folder that cannot be read;
            by default it is raised.

    Yields:
        tuple[str, list[str]]: The path of a folder, and its files in order.
    """
    seen = {os.path.realpath(folder)}
    for parent, folders, names in os.walk(
            folder, onerror=on_error, followlinks=True):
        new = []
        for name in sorted(folders):
            place = os.path.realpath(os.path.join(parent, name))
            if place not in seen:
                seen.add(place)
                new.append(name)
        folders[:] = new
        yield parent, sorted(names)
