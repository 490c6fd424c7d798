# Licensed under the Apache License, Version 2.0.
"""What the commands of ``tools/datasets/prepare_*.py`` have in common."""
import argparse
import os
import sys
from typing import Callable, Dict, Tuple

from .counts import describe_summary


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add ``--workers``.

    Args:
        parser (argparse.ArgumentParser): Of the command.
    """
    parser.add_argument(
        '--workers',
        type=int,
        default=os.cpu_count(),
        help='processes; the file does not depend on it')


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add ``--overwrite``.

    Args:
        parser (argparse.ArgumentParser): Of the command.
    """
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='replace files of other origin, inputs or options, and make '
        'those of the same again')


def report(name: str, prepare: Callable[[], Tuple[Dict, bool]]) -> str:
    """Prepare, and say what there is.

    Args:
        name (str): The command's name.
        prepare (Callable): Returns the summary, and whether it did anything.

    Returns:
        str: To print.

    Raises:
        SystemExit: With the error's message, if the input is wrong.
    """
    try:
        summary, made = prepare()
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f'{name}: {error}')
    return f'{describe_summary(summary)}\n' + ('made' if made else
                                               'was made before, complete')
