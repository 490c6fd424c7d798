# Licensed under the Apache License, Version 2.0.
"""Commands: one line for a mistake, a traceback for a bug."""
import linecache
import os
import re
import sys
from pathlib import Path
from pickle import UnpicklingError
from traceback import walk_tb
from typing import Callable, Optional, Tuple

#: Set to anything, this variable has every error print its traceback.
TRACEBACK = 'MMDET_CLIM_TRACEBACK'
PACKAGE = Path(__file__).resolve().parent
# What is raised on purpose, with a message for whoever gave the input.
MESSAGES = (ValueError, TypeError, KeyError, AttributeError, RuntimeError,
            NotImplementedError, ImportError, SyntaxError)
# MMEngine's readers and builders of configs raise such, too.
BUILDERS = re.compile(r'mmengine/(config|registry)/\w+\.py$')
CONFIG_READER = re.compile(r'mmengine/config/config\.py$')
INSTALLED = re.compile('site-packages|dist-packages|lib/python')
UNEXPECTED = re.compile(
    r"(\w+)(?:\.__init__)?\(\) (?:got an unexpected keyword argument '(\w+)'"
    r'|missing \d+ required (?:positional|keyword-only) arguments?: .*)')
# What torch makes of an error in a worker that loads data.
WORKER = re.compile(r'Caught (\w+) in .*worker.*Original Traceback', re.DOTALL)
WORKER_FRAME = re.compile(r'  File "(.*?)", line (\d+)')


def run_command(main: Callable[[], None]) -> None:
    """Run a command; a mistake of its user ends it with one line.

    Errors of files, and those that this package, the command and MMEngine's
    config reader raise on purpose, are printed as ``error: ...`` and the exit
    status is 1. Anything else is a bug and keeps its traceback, and so does
    everything where the environment variable ``MMDET_CLIM_TRACEBACK`` is set.

    Args:
        main (Callable): The command, without arguments.

    Raises:
        SystemExit: After a mistake.
    """
    try:
        main()
    except Exception as error:
        if os.environ.get(TRACEBACK) or not is_mistake(error):
            raise
        sys.exit(f'error: {one_line(error)}')


def is_mistake(error: BaseException) -> bool:
    """Whether an error tells its user of the input and not of a bug.

    Args:
        error (BaseException): As it was caught, with its traceback.
    """
    worker = WORKER.match(str(error))
    if worker:
        frames = WORKER_FRAME.findall(str(error))
        return worker[1].endswith('Error') and bool(frames) and (
            isinstance(error, OSError)
            or _is_raised_on_purpose(frames[-1][0], int(frames[-1][1])))
    if isinstance(error, (OSError, UnpicklingError)):
        return True
    frames = [(frame.f_code.co_filename, line)
              for frame, line in walk_tb(error.__traceback__)]
    if not frames:
        return False
    if isinstance(error, TypeError) and UNEXPECTED.search(str(error)):
        return bool(BUILDERS.search(frames[-1][0]))
    if _config_that_failed(error) is not None:
        return True
    return isinstance(error, MESSAGES) and _is_raised_on_purpose(*frames[-1])


def _is_raised_on_purpose(file: str, line: int) -> bool:
    """Whether a line of ours, or of a config reader, is a ``raise``."""
    path = Path(file).resolve()
    main = getattr(sys.modules['__main__'], '__file__', None)
    ours = PACKAGE in path.parents or (main is not None
                                       and path == Path(main).resolve())
    return (ours or bool(BUILDERS.search(path.as_posix()))) \
        and linecache.getline(file, line).lstrip().startswith('raise')


def _config_that_failed(error: BaseException) -> Optional[str]:
    """The config whose code has an error, as its reader names it.

    The code is called by the reader itself, and what is no Python is parsed
    by it.
    """
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    files = [frame.f_code.co_filename for frame in frames]
    readers = [n for n, file in enumerate(files) if CONFIG_READER.search(file)]
    if not readers:
        return None
    runs_it = readers[-1] == len(files) - 2 and not INSTALLED.search(files[-1])
    if not runs_it and not isinstance(error, SyntaxError):
        return None
    names = [frames[n].f_locals.get('filename') for n in readers]
    return next((str(name) for name in reversed(names) if name), 'config')


def one_line(error: BaseException) -> str:
    """What an error says, in one line.

    Args:
        error (BaseException): A ``KeyError`` without its quotes, and an
            error in a config with its type and the file.
    """
    text = str(error)
    if isinstance(error, KeyError) and len(error.args) == 1:
        text = str(error.args[0])
    config = _config_that_failed(error)
    if WORKER.match(text):
        text = text.strip().splitlines()[-1]
    elif config is not None:
        text = f'{config}: {type(error).__name__}: {text}'
    return ' '.join((text or type(error).__name__).split())


def unexpected_keyword(error: BaseException) -> Optional[Tuple[str, str]]:
    """The class and the argument that it does not take.

    Args:
        error (BaseException): What building a config raised.

    Returns:
        tuple[str, str] or None: None if the error is another.
    """
    found = UNEXPECTED.search(str(error))
    if not isinstance(error, TypeError) or not found or not found[2]:
        return None
    return found[1], found[2]
