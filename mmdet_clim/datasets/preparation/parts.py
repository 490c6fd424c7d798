# Licensed under the Apache License, Version 2.0.
"""Long work in parts: on several processes, and resumed where it stopped."""
import hashlib
import json
import multiprocessing
from collections import Counter, deque
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import (
    Any,
    Callable,
    Deque,
    Dict,
    Iterable,
    Iterator,
    Mapping,
    Optional,
    Sequence,
    Sized,
    Tuple,
    cast,
)

from mmdet_clim.progress import progress

from ..source_tables import make_table
from .captioned_images import Part, TagClasses, write_captioned_images
from .files import write_json
from .job import Job, run_job

#: Images per part: some seconds of work, so a killed run loses little.
PART_SIZE = 2000


def in_parts(entries: Iterable[Any],
             size: int = PART_SIZE) -> Iterator[Tuple[Any, ...]]:
    """Tuples of ``size`` entries, the last one shorter.

    Args:
        entries (Iterable): In a fixed order.
        size (int): How many.
    """
    waiting = []
    for entry in entries:
        waiting.append(entry)
        if len(waiting) == size:
            yield tuple(waiting)
            waiting = []
    if waiting:
        yield tuple(waiting)


def _read_part(path: Path, digest: str) -> Optional[Part]:
    """A part that was made before of the same task, else None."""
    if not path.is_file():
        return None
    content = json.loads(path.read_text(encoding='utf-8'))
    if content['task'] != digest:
        return None
    return Part(content['samples'], Counter(content['dropped']),
                Counter(content['noted']), content['example'])


_make: Optional[Callable[[Any], Part]] = None


def _set_make(make: Callable[[Any], Part]) -> None:
    """Keep what makes parts: it is sent to a process once, not per part."""
    global _make
    _make = make


def _make_part_here(task: Any, path: Path, digest: str) -> None:
    """Make a part in a worker process."""
    _make_part(cast(Callable[[Any], Part], _make), task, path, digest)


def _make_part(make: Callable[[Any], Part], task: Any, path: Path,
               digest: str) -> None:
    """Make a part and leave it as a file, whole or not at all."""
    part = make(task)
    write_json(
        path,
        dict(
            task=digest,
            samples=part.samples,
            dropped=part.dropped,
            noted=part.noted,
            example=part.example))


class PartFiles:
    """The parts that tasks made, in order, read when they are asked for.

    Args:
        files (Sequence[tuple[Path, str]]): File and digest of the task.
    """

    def __init__(self, files: Sequence[Tuple[Path, str]]) -> None:
        self.files = files

    def __iter__(self) -> Iterator[Part]:
        for path, digest in self.files:
            yield cast(Part, _read_part(path, digest))


def make_parts(tasks: Iterable[Any], make: Callable[[Any], Part], folder: Path,
               workers: int, title: str) -> PartFiles:
    """Do all tasks.

    Each result is a file in the folder: what is there of the same task is
    not made again. The result does not depend on the number of processes.

    Args:
        tasks (Iterable): In a fixed order. Few of them are in memory.
        make (Callable[[Any], Part]): Does one; it goes to other processes.
        folder (Path): For the files.
        workers (int): Processes; 1 works in this one.
        title (str): Of the progress bar.

    Returns:
        PartFiles: What was made, in order.

    Raises:
        ValueError: If ``workers`` is not positive.
    """
    if workers < 1:
        raise ValueError(f'workers: expected a positive number, got {workers}')
    folder.mkdir(exist_ok=True)
    paths = []
    # Fresh processes: a fork of one with threads (a bar's) may hang.
    context = multiprocessing.get_context('spawn')
    with nullcontext() if workers == 1 else ProcessPoolExecutor(
            workers, mp_context=context, initializer=_set_make,
            initargs=(make, )) as pool, progress(
                title,
                len(tasks) if isinstance(tasks, Sized) else None) as advance:
        running: Deque[Future] = deque()
        try:
            for number, task in enumerate(tasks):
                path = folder / f'{number:07d}.json'
                digest = hashlib.sha256(repr(task).encode()).hexdigest()
                paths.append((path, digest))
                if _read_part(path, digest) is not None:
                    advance(1)
                elif pool is None:
                    _make_part(make, task, path, digest)
                    advance(1)
                else:
                    running.append(
                        pool.submit(_make_part_here, task, path, digest))
                while len(running) > 2 * workers:
                    running.popleft().result()
                    advance(1)
            while running:
                running.popleft().result()
                advance(1)
        finally:
            for future in running:
                future.cancel()
    return PartFiles(paths)


def prepare_in_parts(tool: str, out: Path, source: str,
                     tasks: Callable[[], Iterable[Any]], make: Callable[[Any],
                                                                        Part],
                     classes: Optional[TagClasses], inputs: Mapping[str, Any],
                     parameters: Mapping[str, Any], workers: int,
                     overwrite: bool, **facts: int) -> Tuple[Dict, bool]:
    """Make a file of captioned images as a job whose work is in parts.

    Args:
        tool (str): The command's name.
        out (Path): The file, with ``*_summary.json`` beside it.
        source (str): What it is made of, for errors.
        tasks (Callable): Gives the tasks, in a fixed order.
        make (Callable[[Any], Part]): Does one.
        classes (TagClasses, optional): The classes of the tags.
        inputs, parameters (Mapping): See :class:`~.job.Job`.
        workers (int): Processes.
        overwrite (bool): Replace a file of other origin.
        **facts (int): More numbers for the summary.

    Returns:
        tuple[dict, bool]: The summary, and False if all was made before.
    """
    job = Job(
        tool=tool,
        folder=out.parent,
        outputs=(out.name, ),
        summary=f'{out.stem}_summary.json',
        inputs=inputs,
        parameters=parameters)

    def make_all(folder: Path) -> Dict:
        parts = make_parts(tasks(), make, folder / 'parts', workers, out.name)
        counts = write_captioned_images(folder / out.name, parts, classes,
                                        source)
        return dict(tool=tool, **facts, files={out.name: counts})

    result = run_job(job, make_all, overwrite)
    # The first training need not wait for it.
    make_table(str(out))
    return result
