# Licensed under the Apache License, Version 2.0.
"""Long work in parts: on several processes, and resumed where it stopped."""
import hashlib
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2

from mmdet_clim.checks import check_range
from mmdet_clim.progress import track

from ..source_tables import make_table
from .captioned_images import Part, TagClasses, write_captioned_images
from .job import Job, do_once, run_job, step_result

#: Images per part: some seconds of work, so a killed run loses little.
PART_SIZE = 2000


def in_parts(entries: Iterable[Any]) -> Iterator[tuple]:
    """Tuples of ``PART_SIZE`` entries, the last one shorter."""
    waiting = iter(entries)
    return iter(lambda: tuple(islice(waiting, PART_SIZE)), ())


def make_parts(tasks: Iterable[Any], make: Callable[[Any], Any], folder: Path,
               workers: int) -> Iterator[str]:
    """Do all tasks.

    Each result is a file in the folder: what is there of the same task is
    not made again. The result does not depend on the number of processes.

    Args:
        tasks (Iterable): In a fixed order. Few of them are in memory.
        make (Callable[[Any], Any]): Does one; it goes to other processes.
            The attributes of what it returns are written as JSON.
        workers (int): Processes; 1 works in this one.

    Yields:
        str: The step of each task when it is done, in order; see
        :func:`~.job.step_result`.

    Raises:
        ValueError: If ``workers`` is not positive.
    """
    check_range(1, workers=workers)
    folder.mkdir(exist_ok=True)
    running: deque[tuple[str, Future]] = deque()
    with nullcontext() if workers == 1 else ProcessPoolExecutor(
            workers,
            # Fresh processes: a fork of one with threads (a bar's) may hang.
            mp_context=multiprocessing.get_context('spawn'),
            initializer=cv2.setNumThreads,
            initargs=(1, )) as pool:
        try:
            for number, task in enumerate(tasks):
                digest = hashlib.sha256(repr(task).encode()).hexdigest()
                step = f'{number:07d}-{digest}'
                if pool is None:
                    _make_part(make, task, folder, step)
                    yield step
                    continue
                running.append(
                    (step, pool.submit(_make_part, make, task, folder, step)))
                if len(running) > 2 * workers:
                    yield _next_done(running)
            while running:
                yield _next_done(running)
        finally:
            for _, future in running:
                future.cancel()


def _make_part(make: Callable[[Any], Any], task: Any, folder: Path,
               step: str) -> None:
    """Make a part, unless it was made before."""
    do_once(folder, step, lambda: vars(make(task)))


def _next_done(running: deque[tuple[str, Future]]) -> str:
    """The step that was begun first, once it is done."""
    step, future = running.popleft()
    future.result()
    return step


@dataclass
class Source:
    """Captioned images that are prepared.

    Args:
        tasks (Callable): Gives the parts of the work, in a fixed order.
        make (Callable): Does one of them; it goes to other processes.
        inputs (dict[str, Any]): See :class:`~.job.Job`.
    """

    tasks: Callable[[], Iterable[Any]]
    make: Callable[[Any], Part]
    inputs: dict[str, Any]


def prepare_in_parts(tool: str, out: Path, where: str, source: Source,
                     classes: TagClasses | None, parameters: Mapping[str, Any],
                     workers: int, overwrite: bool,
                     **facts: int) -> tuple[dict, bool]:
    """Make a file of captioned images as a job whose work is in parts.

    Args:
        out (Path): The file, with ``*_summary.json`` beside it.
        where (str): What messages call the source.
        classes (TagClasses, optional): The classes of the tags.
        parameters (Mapping): See :class:`~.job.Job`.
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
        inputs=source.inputs,
        parameters=parameters)

    def make_all(folder: Path) -> dict:
        waiting, made = source.tasks(), folder / 'parts'
        steps = [
            *track(
                make_parts(waiting, source.make, made, workers), out.name,
                len(waiting) if isinstance(waiting, Sized) else None)
        ]
        counts = write_captioned_images(
            folder / out.name, lambda: (Part(**step_result(made, step))
                                        for step in steps), classes, where)
        return dict(tool=tool, **facts, files={out.name: counts})

    result = run_job(job, make_all, overwrite)
    # The first training need not wait for it.
    make_table(str(out))
    return result
