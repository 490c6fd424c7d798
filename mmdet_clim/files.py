# Licensed under the Apache License, Version 2.0.
"""Files that appear whole or not at all."""
import os
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A file beside a path, which takes its place once it is written.

    Whoever reads the path finds the old file or the new one, never a part
    of one, also after a kill or a loss of power.

    Args:
        path (Path): Where the file appears when the block ends without an
            error. Its folder is made where it is missing.

    Yields:
        Path: What to write. It is removed if the block ends with an error;
        what a killed process leaves there is overwritten by the next one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f'.{path.name}.writing')
    # A link that came with a folder would be written through.
    beside.unlink(missing_ok=True)
    try:
        yield beside
        with open(beside, 'rb+') as written:
            os.fsync(written.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
