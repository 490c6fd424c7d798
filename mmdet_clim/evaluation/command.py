# Licensed under the Apache License, Version 2.0.
"""What the commands that compare runs have in common."""
import argparse
from typing import Any, Dict, List


class _Runs(argparse.Action):
    """Collects the runs by name."""

    def __call__(self,
                 parser: argparse.ArgumentParser,
                 namespace: argparse.Namespace,
                 values: Any,
                 option_string: Any = None) -> None:
        name, *work_dirs = values
        runs: Dict[str, List[str]] = vars(namespace).setdefault(self.dest, {})
        if not work_dirs:
            parser.error(f'--run {name}: expected at least one work dir')
        if name in runs:
            parser.error(f'--run {name}: expected every name once; the work '
                         'dirs of all its seeds go behind one --run')
        runs[name] = work_dirs


def add_runs(parser: argparse.ArgumentParser, what: str) -> None:
    """Add ``--run NAME WORK_DIR ...``, which may be given several times.

    The parsed ``run`` is a dict, in the order of the command line: name of a
    run to the work dir of each of its seeds.

    Args:
        parser (argparse.ArgumentParser): Of the command.
        what (str): What a run is to the command, for its help.
    """
    parser.add_argument(
        '--run',
        nargs='+',
        action=_Runs,
        required=True,
        default=argparse.SUPPRESS,
        metavar=('NAME', 'WORK_DIR'),
        help=f'{what}: its name, then the work dir of each seed; give the '
        'option once for each')
