# Licensed under the Apache License, Version 2.0.
"""A preparation as a whole: resumed, published, and done only once."""
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdet_clim.version import __version__

from .files import empty_folder, locked_folder, write_json

#: Counted up whenever the same inputs and parameters give other files.
REVISION = 2


def file_stamp(path: Path, expected: str = '') -> dict[str, int]:
    """Size in bytes and time of change of an input, to know it again.

    Args:
        expected (str): What it is, for the error.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file' + (
            f', expected {expected} there' if expected else ''))
    stat = path.stat()
    return dict(bytes=stat.st_size, changed=stat.st_mtime_ns)


def stamp_of(path: Path) -> dict[str, int] | None:
    """:func:`file_stamp`, None where no file is there."""
    try:
        return file_stamp(path)
    except (OSError, ValueError):
        return None


def images_stamp(folder: Path, names: Iterable[str]) -> str:
    """A digest of images, to know when some were changed or came later.

    Args:
        folder (Path): The folder that they are below.
        names (Iterable[str]): Their names; they need not be there.
    """
    digest = hashlib.sha256()
    for name in names:
        digest.update(repr((name, stamp_of(folder / name))).encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class Job:
    """What is made, of what.

    Args:
        folder (Path): Where the files go.
        outputs (tuple[str]): Names of the files, or of folders of files.
        summary (str): Name of the file of counts, ``*.json``. It is written
            last.
        inputs (Mapping[str, Any]): What tells each input from a changed one,
            such as :func:`file_stamp`, by its path.
        parameters (Mapping): What else decides the content of the files.
    """

    tool: str
    folder: Path
    outputs: tuple[str, ...]
    summary: str
    inputs: Mapping[str, Any]
    parameters: Mapping[str, Any]

    @property
    def names(self) -> tuple[str, ...]:
        """Of all that is made, the summary last."""
        return (*self.outputs, self.summary)

    @property
    def work_folder(self) -> Path:
        """Where unfinished files are."""
        return self.folder / f'.{Path(self.summary).stem}.partial'

    @property
    def record(self) -> Path:
        """Says what the finished files were made of."""
        return self.folder / f'.{Path(self.summary).stem}.job.json'

    @property
    def state(self) -> Path:
        """Says what the unfinished files are made of."""
        # A hidden name: an output may be called job.json.
        return self.work_folder / '.job.json'

    def describe(self) -> dict:
        """All that decides the content of the files, as JSON has it."""
        return json.loads(
            json.dumps(
                dict(
                    tool=self.tool,
                    revision=REVISION,
                    outputs=self.outputs,
                    inputs=self.inputs,
                    parameters=self.parameters)))

    def begun(self) -> dict:
        """What its state says: another version may make other steps."""
        return dict(self.describe(), version=__version__)


def _read(path: Path) -> Any:
    """The content of a JSON file, None if there is no file."""
    if not path.is_file():
        return None
    return json.loads(path.read_text(encoding='utf-8'))


def _extent(path: Path) -> Any:
    """The bytes of a file; the number and bytes of those of a folder.

    Not of the folders in it: what is made of the files later lies there.
    """
    if path.is_dir():
        sizes = [f.stat().st_size for f in path.iterdir() if f.is_file()]
        return [len(sizes), sum(sizes)]
    return path.stat().st_size if path.is_file() else None


def is_made(job: Job, overwrite: bool = False) -> bool:
    """Whether every file is there, made of the same by the same.

    Args:
        overwrite (bool): Whether it may be lost, and is to be made again.

    Raises:
        FileExistsError: If a file is there that would be lost and can not be
            made again. One that is missing among those of the same job is
            made again.
    """
    if overwrite:
        return False
    wanted, record = job.describe(), _read(job.record)
    same = record is not None and record['job'] == wanted
    changed = [
        name for name in job.names
        if not same or _extent(job.folder / name) != record['bytes'].get(name)
    ]
    if not changed:
        return True
    taken = [name for name in changed if (job.folder / name).exists()]
    # What a killed run has published of these very files is not in the way.
    if taken and _read(job.state) != job.begun():
        reason = 'is not of this tool'
        if same:
            reason = 'was changed since it was made'
        elif record is not None:
            differ = _difference(record['job'], wanted)
            reason = f'was made with other {differ}'
        raise FileExistsError(f'{job.folder / taken[0]}: {reason}. Give '
                              'another folder, or --overwrite to replace it')
    return False


def _difference(was: Mapping, wanted: Mapping) -> str:
    """What tells a job from the one that files were made by."""
    found = ['version of this tool'] * (was['revision'] != wanted['revision'])
    for part in ('inputs', 'parameters'):
        for key in sorted({*was[part], *wanted[part]}):
            old, new = was[part].get(key), wanted[part].get(key)
            if old != new:
                # Those of inputs tell nobody anything.
                shown = '' if part == 'inputs' else \
                    f' {old!r:.60} (wanted {new!r:.60})'
                found.append(f'{part} {key}{shown}')
    return ', '.join(found) or 'files'


def _publish(job: Job, folder: Path) -> None:
    """Move the finished files to their places, the summary last."""
    for name in job.names:
        place = job.folder / name
        # Where an interrupted run has published it, it is in place already.
        if (folder / name).exists():
            if place.is_dir():
                shutil.rmtree(place)
            os.replace(folder / name, place)
    write_json(
        job.record,
        dict(
            job=job.describe(),
            bytes={name: _extent(job.folder / name)
                   for name in job.names}))
    shutil.rmtree(folder)


def run_job(job: Job,
            make: Callable[[Path], dict],
            overwrite: bool = False) -> tuple[dict, bool]:
    """Make the files of a job, go on with them, or find them made.

    Everything is written into a hidden folder beside the files' place. When
    all is there, each file is renamed to its place. A killed job goes on
    with what it left if inputs, parameters and the version of this package
    are still the same, else it starts anew; with ``overwrite`` it always
    does.

    Args:
        make (Callable[[Path], dict]): Writes the outputs into the folder it
            gets and returns the summary. It may find there what it left when
            it was killed; see :func:`do_once`.
        overwrite (bool): Replace files of other origin or of other
            parameters, and make those of the same ones again.

    Returns:
        tuple[dict, bool]: The summary, and False if all was made before.

    Raises:
        FileExistsError: If an output exists that would be replaced.
        RuntimeError: If another process is at it.
    """
    if is_made(job, overwrite):
        return _read(job.folder / job.summary), False
    with locked_folder(
            job.work_folder,
            f'{job.folder}: another process is making these files now'
    ) as folder:
        if overwrite or _read(job.state) != job.begun():
            empty_folder(folder)
            write_json(job.state, job.begun())
        made = folder / '.made.json'
        if not made.exists():
            summary = make(folder)
            write_json(folder / job.summary, summary, indent=1)
            write_json(made, True)
        _publish(job, folder)
    return _read(job.folder / job.summary), True


def do_once(folder: Path, step: str, action: Callable[[], dict]) -> dict:
    """Do a step, or read what it returned when it was done before.

    Args:
        folder (Path): The folder of the job.
        step (str): Its name, good for a file.
        action (Callable[[], dict]): Does it, and leaves only whole files.

    Returns:
        dict: What the action returned, as JSON has it.
    """
    note = folder / f'step-{step}.json'
    if not note.exists():
        write_json(note, action())
    return _read(note)


def step_result(folder: Path, step: str) -> dict:
    """What the action of a step returned that was done; see `do_once`."""
    return _read(folder / f'step-{step}.json')
