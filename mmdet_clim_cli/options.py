# Licensed under the Apache License, Version 2.0.
"""Options that several commands have, and a parser that knows old names."""
import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

#: Set by ``clim`` to the words that a script was called by, as runpy has its
#: own first word for a script.
PROGRAM: list[str] = []
#: Set by ``clim``: scripts below ``tools/`` to the commands that run them.
COMMAND_OF: dict[str, str] = {}


class Parser(argparse.ArgumentParser):
    """argparse's parser, for options that were renamed and packages' files.

    ``PACKAGE::FILE`` is a file of the configs that a package installs, such as
    ``mmdet_clim::openmoji/faster-rcnn_r18-c4_256_base.pth``.

    Args:
        renamed (Mapping[str, str], optional): Old names to new ones, such as
            ``{'--out': '--out-dir'}``. An old name is taken for the new one,
            with a warning on stderr, and is not in the help.
        **kwargs: See ``argparse.ArgumentParser``.
    """

    def __init__(self,
                 *,
                 renamed: Mapping[str, str] | None = None,
                 **kwargs: Any) -> None:
        if PROGRAM:
            kwargs.setdefault('prog', ' '.join(PROGRAM))
        super().__init__(**kwargs)
        self._renamed = dict(renamed or {})

    def format_help(self) -> str:
        """The help, with the commands of ``clim`` if it was called by that."""
        text = super().format_help().replace('``', '`')
        if not PROGRAM:
            return text
        return re.sub(r'(?:python )?tools/([\w/]+\.py)',
                      lambda found: COMMAND_OF.get(found[1], found[0]), text)

    def parse_known_args(  # type: ignore[override]
            self,
            args: Sequence[str] | None = None,
            namespace: Any = None) -> Any:
        words = list(sys.argv[1:] if args is None else args)
        end = words.index('--') if '--' in words else len(words)
        for number, word in enumerate(words[:end]):
            name, equals, value = word.partition('=')
            if name in self._renamed:
                new = self._renamed[name]
                print(
                    f'{self.prog}: warning: {name} is now called {new}; the '
                    'old name will be removed in the next release',
                    file=sys.stderr)
                words[number] = new + equals + value
        words[:end] = [package_file(word) for word in words[:end]]
        return super().parse_known_args(words, namespace)


def package_file(word: str) -> str:
    """The path of ``PACKAGE::FILE`` in a command line.

    Args:
        word (str): Any word, or ``--option=word``.

    Returns:
        str: The path below the package's ``.mim/configs``, or the word as it
        is where there is no such file.
    """
    option, equals, value = word.partition('=') if word.startswith('--') else (
        '', '', word)
    package, separator, name = value.partition('::')
    if not separator or not package.isidentifier():
        return word
    # Without an import, which would take seconds.
    spec = find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        file = Path(folder, '.mim', 'configs', name)
        if file.is_file():
            return f'{option}{equals}{file}'
    return word


class KeyValues(argparse.Action):
    """MMEngine's ``DictAction``, imported once there is something to read."""

    def __call__(self,
                 parser: argparse.ArgumentParser,
                 namespace: argparse.Namespace,
                 values: Any,
                 option_string: str | None = None) -> None:
        from mmengine.config import DictAction
        DictAction(self.option_strings, self.dest)(parser, namespace, values,
                                                   option_string)


class _Runs(argparse.Action):
    """Collects the runs by name."""

    def __call__(self,
                 parser: argparse.ArgumentParser,
                 namespace: argparse.Namespace,
                 values: Any,
                 option_string: str | None = None) -> None:
        name, *work_dirs = values
        runs: dict[str, list[str]] = vars(namespace).setdefault(self.dest, {})
        if not work_dirs:
            parser.error(f'--run {name}: expected at least one work dir')
        if name in runs:
            parser.error(
                f'--run {name}: expected each name once; give the work '
                'dirs of all its seeds after one --run')
        runs[name] = work_dirs


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """Make a ``type`` of argparse: whole numbers of a range.

    Args:
        least (int): The lowest.
        most (int, optional): The highest.
    """
    wanted = f'at least {least}' if most is None else f'{least} to {most}'

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least or most is not None and number > most:
            raise argparse.ArgumentTypeError(
                f'expected a whole number, {wanted}, got {text}')
        return number

    return read


class _Seeds(argparse.Action):
    """Seeds that differ: one that is named twice would count twice."""

    def __call__(self,
                 parser: argparse.ArgumentParser,
                 namespace: argparse.Namespace,
                 values: Any,
                 option_string: str | None = None) -> None:
        if len(set(values)) < len(values):
            parser.error(f'--seeds: expected different ones, got {values}')
        setattr(namespace, self.dest, values)


def add_seeds(parser: argparse.ArgumentParser, default: Sequence[int]) -> None:
    """Add ``--seeds``, of trainings.

    Args:
        parser (argparse.ArgumentParser): Of the command.
        default (Sequence[int]): Where the option is not given.
    """
    # NumPy takes no others.
    parser.add_argument(
        '--seeds',
        type=whole(0, 2**32 - 1),
        nargs='+',
        action=_Seeds,
        default=list(default))


def key_value(text: str) -> str:
    """Check a setting of ``--cfg-options``; a ``type`` of argparse.

    Args:
        text (str): ``key=value``, for :class:`KeyValues`.

    Raises:
        ArgumentTypeError: If it is none.
    """
    key, equals, _ = text.partition('=')
    if not key.strip() or not equals:
        raise argparse.ArgumentTypeError(f'expected key=value, got {text!r}')
    from mmengine.config import DictAction
    try:
        DictAction([], 'read')(None, argparse.Namespace(), [text])
    except AssertionError as error:
        raise argparse.ArgumentTypeError(f'{text!r}: {error}') from error
    return text


def device_name(text: str) -> str:
    """Check the name of a device; a ``type`` of argparse.

    Args:
        text (str): As torch has it, such as ``cpu`` or ``cuda:0``.

    Raises:
        ArgumentTypeError: If this machine has none of that name.
    """
    if text == 'cpu':
        return text
    import torch
    try:
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError) as error:
        raise argparse.ArgumentTypeError(
            f'expected a device of this machine, such as cpu or cuda:0, got '
            f'{text!r} ({str(error).splitlines()[0]})') from error
    return text


def add_cfg_options(parser: argparse.ArgumentParser,
                    what: str = 'settings that override the config',
                    default: dict | None = None) -> None:
    """Add ``--cfg-options KEY=VALUE ...``.

    Args:
        parser (argparse.ArgumentParser): Of the command.
        what (str): What the settings change, for the help.
        default (dict, optional): Where the option is not given.
    """
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=KeyValues,
        type=key_value,
        default=default,
        metavar='KEY=VALUE',
        help=f'{what}, as key=value; lists as key="[a,b]" or key=a,b, nested '
        'ones as key="[(a,b),(c,d)]", without white space')


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """Add ``--launcher``, and what torch's launchers add to a command line.

    Args:
        parser (argparse.ArgumentParser): Of the command.
    """
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='launcher of the processes of a distributed run')
    # torch.distributed.launch passes it; MMEngine reads the environment.
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, default=0, help='(launcher)')


def add_workers(parser: argparse.ArgumentParser, what: str = 'file') -> None:
    """Add ``--workers``.

    Args:
        parser (argparse.ArgumentParser): Of the command.
        what (str): What it makes.
    """
    parser.add_argument(
        '--workers',
        type=int,
        default=os.cpu_count(),
        help=f'number of processes; does not change the {what}')


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add ``--overwrite``.

    Args:
        parser (argparse.ArgumentParser): Of the command.
    """
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='replace existing files, whatever they were made from')


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
        help=f'{what}: its name, then the work dir of each seed; repeat the '
        'option for each')


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``.

    Args:
        parser (argparse.ArgumentParser): Of the command.
    """
    parser.add_argument(
        '--json',
        action='store_true',
        help='print the result as JSON in the last line')


def print_result(args: argparse.Namespace,
                 result: Any,
                 text: Any = None) -> None:
    """Print what a command found or made.

    Args:
        args (argparse.Namespace): With what :func:`add_json` adds.
        result (Any): For other programs; paths are written as text.
        text (Any, optional): The same for people; None if they have been
            told already.
    """
    if args.json:
        print(json.dumps(result, default=_plain))
    elif text is not None:
        print(text)


def _plain(value: Any) -> Any:
    """What JSON has in the place of a path or of a number of NumPy's."""
    return value.item() if hasattr(value, 'item') else str(value)
