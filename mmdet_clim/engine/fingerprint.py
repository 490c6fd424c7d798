# Licensed under the Apache License, Version 2.0.
"""Which run a work dir holds, so that no run is taken for another one.

::

    with open_run(work_dir, run_fingerprint(cfg), args.overwrite) as finished:
        if not finished:
            ...  # train, or go on; the run is finished where this ends well
"""
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmdet_clim.datasets.preparation.files import write_json
from mmdet_clim.datasets.preparation.job import file_stamp
from mmdet_clim.version import __version__

RECORD = 'fingerprint.json'
FINISHED = 'finished'
#: Where a run writes and how it is started: not what comes out.
_ELSEWHERE = ('work_dir', 'resume', 'launcher')
#: Larger files are known by size and time of change: reading takes seconds.
_MOST_BYTES = 1 << 29
#: Differences that an error names.
_NAMED = 4
_CHECKPOINTS = ('iter_*.pth', 'epoch_*.pth', 'best_*.pth')
_MISSING = object()


def run_fingerprint(cfg: Config) -> dict[str, Any]:
    """All that decides what comes out of a training.

    Args:
        cfg (Config): The resolved config with its seed (``randomness``) and
            all options, before ``load_from`` is changed for a resumption.

    Returns:
        dict: As JSON has it. ``version`` of this package; ``config`` without
        ``work_dir``, ``resume`` and ``launcher``, in which a digest of the
        content stands for each file that is named (``load_from``,
        ``ann_file``, weights), so that it may be moved but not changed, and
        ``{work_dir}`` for the work dir. Image folders are not read.
    """
    settings = {
        key: value
        for key, value in cfg.to_dict().items() if key not in _ELSEWHERE
    }
    settings = _plain(settings, cfg.get('work_dir'), None, {})
    return dict(version=__version__, config=settings)


def differences(old: Any,
                new: Any,
                key: str = '') -> list[tuple[str, str, str]]:
    """What differs between two fingerprints.

    Returns:
        list[tuple[str, str, str]]: Key in dots as ``--cfg-options`` takes it,
        old and new value.
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        pairs = [(name, old.get(name, _MISSING), new.get(name, _MISSING))
                 for name in {
                     **old,
                     **new
                 }]
    elif _has_parts(old) and _has_parts(new) and len(old) == len(new):
        pairs = [(str(i), *both) for i, both in enumerate(zip(old, new))]
    else:
        same = type(old) is type(new) and old == new
        return [] if same else [(key, _shown(old), _shown(new))]
    return [
        found for name, before, after in pairs for found in differences(
            before, after, f'{key}.{name}' if key else '' if name ==
            'config' else name)
    ]


def check_run(work_dir: Path,
              wanted: Mapping[str, Any],
              overwrite: bool = False) -> None:
    """Refuse early what :func:`open_run` would refuse later.

    Args:
        work_dir (Path): As there.
        wanted (dict): As there.
        overwrite (bool): As there.

    Raises:
        FileExistsError: If the work dir holds another run, or one that says
            not which it is.
    """
    work_dir = Path(work_dir)
    if overwrite or not _is_worth_keeping(work_dir):
        return
    wrong = _other_run(work_dir, wanted)
    if wrong:
        raise FileExistsError(
            f'{work_dir}: contains another run: {wrong}. Give another work '
            'dir, or --overwrite to start over in this one')


@contextmanager
def open_run(work_dir: Path,
             wanted: Mapping[str, Any],
             overwrite: bool = False) -> Iterator[bool]:
    """Begin a run in a work dir, go on with it, or find it finished.

    The run is finished when the block ends without an error. Meanwhile no
    other process can have the work dir. Another run that left no checkpoint
    is no loss: it is replaced.

    Args:
        work_dir (Path): Of this run alone.
        wanted (dict): The run's :func:`run_fingerprint`.
        overwrite (bool): Begin anew whatever the work dir holds: checkpoints
            and logs of a run, another one or this one, are removed.

    Yields:
        bool: Whether this very run is finished already.

    Raises:
        FileExistsError: If the work dir holds another run, or one that says
            not which it is.
        RuntimeError: If another process has the work dir.
    """
    work_dir = Path(work_dir)
    work_dir.mkdir(parents=True, exist_ok=True)
    with _locked(work_dir):
        check_run(work_dir, wanted, overwrite)
        if overwrite or _other_run(work_dir, wanted):
            _remove_run(work_dir)
        if not (work_dir / RECORD).exists():
            write_json(work_dir / RECORD, wanted, indent=1)
        finished = (work_dir / FINISHED).exists()
        yield finished
        if not finished:
            (work_dir / FINISHED).touch()


def read_fingerprint(work_dir: Path) -> dict[str, Any] | None:
    """The fingerprint of a run, None of a work dir that has none.

    Raises:
        ValueError: If its file is no such JSON.
    """
    file = Path(work_dir) / RECORD
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'{file}: expected JSON, got {error}') from error
    if not isinstance(content, dict) or not isinstance(
            content.get('config'), dict):
        raise ValueError(f'{file}: expected an object with "config"')
    return content


def _other_run(work_dir: Path, wanted: Mapping[str, Any]) -> str:
    """What makes the run of a work dir another one, empty if nothing."""
    try:
        found = read_fingerprint(work_dir)
    except ValueError as error:
        return str(error)
    if found is None:
        left = [file.name for file in _files_of_run(work_dir)]
        return left and (f'there is {sorted(left)[0]}, but no {RECORD} that '
                         'says of which settings') or ''
    # As JSON has it: numbers and texts, not their types in Python.
    wrong = differences(found, json.loads(json.dumps(wanted)))
    named = [f'{key} is {old}, wanted {new}' for key, old, new in wrong]
    more = len(named) - _NAMED
    return '; '.join(
        named[:_NAMED]) + (f'; and {more} more' if more > 0 else '')


def _files_of_run(work_dir: Path) -> list[Path]:
    """What MMEngine leaves of a run, and the marks of this module."""
    return [
        path for pattern in (*_CHECKPOINTS, 'last_checkpoint',
                             '[0-9]' * 8 + '_' + '[0-9]' * 6, FINISHED, RECORD)
        for path in work_dir.glob(pattern)
    ]


def _is_worth_keeping(work_dir: Path) -> bool:
    return (work_dir / FINISHED).exists() or any(
        next(work_dir.glob(pattern), None) for pattern in _CHECKPOINTS)


@contextmanager
def _locked(work_dir: Path) -> Iterator[None]:
    """Keep other processes out of a work dir.

    Unlike a lock of flock, this one is not inherited by the processes that
    load data, which outlive one that is killed by some seconds.
    """
    with open(work_dir / '.lock', 'w') as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RuntimeError(f'{work_dir}: another process is training in '
                               'this work dir now') from None
        yield


def _remove_run(work_dir: Path) -> None:
    """Make room; the record goes last, so that a stop leaves no half run."""
    for path in _files_of_run(work_dir):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _plain(value: Any, work_dir: str | None, root: str | None,
           digests: dict[str, str]) -> Any:
    """A part of a config as JSON has it, with digests in place of files."""
    if isinstance(value, Mapping):
        root = value.get('data_root') or root
        return {
            str(key): _plain(part, work_dir, root, digests)
            for key, part in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_plain(part, work_dir, root, digests) for part in value]
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        return _file_digest(value, root, digests) or _without(value, work_dir)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    # Types and functions of configs in plain Python.
    return '.'.join(
        filter(None, (getattr(value, '__module__', None),
                      getattr(value, '__qualname__', None)))) or repr(value)


def _without(text: str, work_dir: str | None) -> str:
    """A text that begins with the work dir, without it."""
    if work_dir and (text == work_dir or text.startswith(f'{work_dir}/')):
        return '{work_dir}' + text[len(work_dir):]
    return text


def _file_digest(text: str, root: str | None,
                 digests: dict[str, str]) -> str | None:
    """What stands for the content of a file, None if it is not one."""
    if not os.path.splitext(text)[1] or '\0' in text:
        return None
    for name in (os.path.join(root or '', text), text):
        if not os.path.isfile(name):
            continue
        if name not in digests:
            digests[name] = _digest(Path(name))
        return digests[name]
    return None


def _digest(file: Path) -> str:
    stamp = file_stamp(file)
    if stamp['bytes'] > _MOST_BYTES:
        return f'file of {stamp["bytes"]} bytes, changed {stamp["changed"]}'
    digest = hashlib.sha256()
    with open(file, 'rb') as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return f'file of sha256 {digest.hexdigest()[:16]}'


def _has_parts(value: Any) -> bool:
    """Whether it is a list in which single entries can be named."""
    return isinstance(value, list) and any(
        isinstance(part, (dict, list)) for part in value)


def _shown(value: Any) -> str:
    text = 'not set' if value is _MISSING else json.dumps(
        value, ensure_ascii=False)
    return text if len(text) <= 80 else f'{text[:77]}...'
