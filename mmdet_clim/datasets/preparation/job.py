# Licensed under the Apache License, Version 2.0.
"""A preparation as a whole: resumed, published, and done only once."""
import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    List,
    Mapping,
    Optional,
    Tuple,
)

from mmdet_clim.version import __version__

from .files import empty_folder, locked_folder, write_json

#: Counted up whenever the same inputs and parameters give other files.
REVISION = 2


def file_stamp(path: Path) -> Dict[str, int]:
    """Size in bytes and time of change of an input, to know it again."""
    stat = path.stat()
    return dict(bytes=stat.st_size, changed=stat.st_mtime_ns)


def stamp_of(path: Path) -> Optional[Dict[str, int]]:
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
        outputs (tuple[str]): Names of the files.
        summary (str): Name of the file of counts, ``*.json``. It is written
            last.
        inputs (Mapping[str, Any]): What tells each input from a changed one,
            such as :func:`file_stamp`, by its path.
        parameters (Mapping): What else decides the content of the files.
    """

    tool: str
    folder: Path
    outputs: Tuple[str, ...]
    summary: str
    inputs: Mapping[str, Any]
    parameters: Mapping[str, Any]

    @property
    def work_folder(self) -> Path:
        """Where unfinished files are."""
        return self.folder / f'.{Path(self.summary).stem}.partial'

    @property
    def record(self) -> Path:
        """Says what the finished files were made of."""
        return self.folder / f'.{Path(self.summary).stem}.job.json'

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


def _read(path: Path) -> Any:
    """The content of a JSON file, None if there is no file."""
    if not path.is_file():
        return None
    return json.loads(path.read_text(encoding='utf-8'))


def _changed(job: Job, record: Dict) -> List[str]:
    """Files that are not there as they were made."""
    return [
        name for name, size in record['bytes'].items()
        if not (job.folder / name).is_file() or (job.folder /
                                                 name).stat().st_size != size
    ]


def _is_finished(job: Job) -> bool:
    """Whether every file is there, made of the same by the same."""
    record = _read(job.record)
    return (record is not None and record['job'] == job.describe()
            and not _changed(job, record))


def _check_free(job: Job) -> None:
    """Raise if a file would be lost that can not be made again.

    A file that is missing among those of the same job is made again.
    """
    names = (*job.outputs, job.summary)
    taken = [name for name in names if (job.folder / name).exists()]
    record = _read(job.record)
    reason = 'is not of this tool'
    if record is not None and record['job'] == job.describe():
        taken = [name for name in _changed(job, record) if name in taken]
        reason = 'was changed since it was made'
    elif record is not None:
        was, wanted = record['job'], job.describe()
        differ = sorted(f'{part} {key}' for part in ('inputs', 'parameters')
                        for key in set(was[part]) | set(wanted[part])
                        if was[part].get(key) != wanted[part].get(key))
        if was['revision'] != wanted['revision']:
            differ = ['version of this tool', *differ]
        reason = f"was made with other {', '.join(differ) or 'files'}"
    if taken:
        raise FileExistsError(f'{job.folder / taken[0]}: {reason}. Give '
                              'another folder, or --overwrite to replace it')


def _publish(job: Job, folder: Path) -> None:
    """Move the finished files to their places, the summary last."""
    names: List[str] = [*job.outputs, job.summary]
    for name in names:
        # Where an interrupted run has published it, it is in place already.
        if (folder / name).exists():
            os.replace(folder / name, job.folder / name)
    write_json(
        job.record,
        dict(
            job=job.describe(),
            bytes={name: (job.folder / name).stat().st_size
                   for name in names}))
    shutil.rmtree(folder)


def run_job(job: Job,
            make: Callable[[Path], Dict],
            overwrite: bool = False) -> Tuple[Dict, bool]:
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
    if not overwrite and _is_finished(job):
        return _read(job.folder / job.summary), False
    # Hidden names: an output may be called job.json or made.json.
    state = job.work_folder / '.job.json'
    with locked_folder(
            job.work_folder,
            f'{job.folder}: another process is making these files now'
    ) as folder:
        begun = dict(job.describe(), version=__version__)
        if overwrite or _read(state) != begun:
            if not overwrite:
                try:
                    _check_free(job)
                except FileExistsError:
                    if not any(folder.iterdir()):
                        folder.rmdir()
                    raise
            empty_folder(folder)
            write_json(state, begun)
        made = folder / '.made.json'
        if not made.exists():
            summary = make(folder)
            write_json(folder / job.summary, summary, indent=1)
            write_json(made, True)
        _publish(job, folder)
    return _read(job.folder / job.summary), True


def do_once(folder: Path, step: str, action: Callable[[], Dict]) -> Dict:
    """Do a step, or read what it returned when it was done before.

    Args:
        folder (Path): The folder of the job.
        step (str): Its name, good for a file.
        action (Callable[[], dict]): Does it, and leaves only whole files.

    Returns:
        dict: What the action returned, as JSON has it.
    """
    note = _note(folder, step)
    if not note.exists():
        write_json(note, action())
    return _read(note)


def step_result(folder: Path, step: str) -> Dict:
    """What the action of a step returned that was done; see `do_once`."""
    return _read(_note(folder, step))


def _note(folder: Path, step: str) -> Path:
    return folder / f'step-{step}.json'
