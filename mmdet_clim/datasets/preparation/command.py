# Licensed under the Apache License, Version 2.0.
"""What the commands of ``tools/datasets/prepare_*.py`` have in common."""
import sys
from argparse import Namespace
from collections.abc import Callable

from mmdet_clim_cli.options import print_result

from .counts import describe_summary


def report(args: Namespace, prepare: Callable[[], tuple[dict, bool]]) -> None:
    """Prepare, and say what there is.

    Args:
        args (Namespace): The command line, with what
            :func:`~mmdet_clim_cli.options.add_json` adds.
        prepare (Callable): Returns the summary, and whether it did anything.

    Raises:
        SystemExit: With the error's message, if the input is wrong.
    """
    try:
        summary, made = prepare()
    except (ValueError, OSError, RuntimeError) as error:
        # Of a worker process, too.
        sys.exit(f'error: {error}')
    print_result(
        args, dict(summary, made=made), f'{describe_summary(summary)}\n' +
        ('made' if made else 'already complete, nothing to do'))
