# Licensed under the Apache License, Version 2.0.
"""What the commands of ``tools/datasets/prepare_*.py`` have in common."""
import sys
from typing import Callable, Dict, Tuple

from .counts import describe_summary


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
