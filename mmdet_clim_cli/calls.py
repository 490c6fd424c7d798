# Licensed under the Apache License, Version 2.0.
"""One command that runs another."""
import runpy
import sys
from pathlib import Path
from typing import Any


def call(script: Path, *words: Any) -> None:
    """Run a script in this process, which has imported what it needs.

    Args:
        script (Path): A command's.
        *words: Its command line.

    Raises:
        RuntimeError: If it ends with a mistake.
    """
    before = sys.argv
    sys.argv = [str(script), *map(str, words)]
    try:
        runpy.run_path(str(script), run_name='__main__')
    except SystemExit as stop:
        if stop.code:
            raise RuntimeError(f'{script.name}: {stop.code}') from stop
    finally:
        sys.argv = before
