# Licensed under the Apache License, Version 2.0.
"""Long work in parts: on several processes, and resumed where it stopped."""
import hashlib
import multiprocessing
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import nullcontext
from itertools import islice
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
)

from mmdet_clim.progress import progress

from ..source_tables import make_table
from .captioned_images import Part, TagClasses, write_captioned_images
from .job import Job, do_once, run_job, step_result

#: Images per part: some seconds of work, so a killed run loses little.
PART_SIZE = 2000


def in_parts(entries: Iterable[Any],
             size: int = PART_SIZE) -> Iterator[Tuple[Any, ...]]:
    """Tuples of so many entries, the last one shorter."""
    waiting = iter(entries)
    return iter(lambda: tuple(islice(waiting, size)), ())


class PartFiles:
    """The parts that tasks made, in order, read when they are asked for.

    Args:
        folder (Path): Of their files.
        steps (Sequence[str]): Their names; see :func:`~.job.do_once`.
    """

    def __init__(self, folder: Path, steps: Sequence[str]) -> None:
        self.folder = folder
        self.steps = steps

    def __iter__(self) -> Iterator[Part]:
        for step in self.steps:
            yield Part(**step_result(self.folder, step))


def _make_part(make: Callable[[Any], Part], task: Any, folder: Path,
               step: str) -> None:
    """Make a part, unless it was made before."""
    do_once(folder, step, lambda: vars(make(task)))


def make_parts(tasks: Iterable[Any], make: Callable[[Any], Part], folder: Path,
               workers: int, title: str) -> PartFiles:
    """Do all tasks.

    Each result is a file in the folder: what is there of the same task is
    not made again. The result does not depend on the number of processes.

    Args:
        tasks (Iterable): In a fixed order. Few of them are in memory.
        make (Callable[[Any], Part]): Does one; it goes to other processes.
        workers (int): Processes; 1 works in this one.

    Raises:
        ValueError: If ``workers`` is not positive.
    """
    if workers < 1:
        raise ValueError(f'workers: expected a positive number, got {workers}')
    folder.mkdir(exist_ok=True)
    steps = []
    # Fresh processes: a fork of one with threads (a bar's) may hang.
    context = multiprocessing.get_context('spawn')
    with nullcontext() if workers == 1 else ProcessPoolExecutor(
            workers, mp_context=context) as pool, progress(
                title,
                len(tasks) if isinstance(tasks, Sized) else None) as advance:
        running: Deque[Future] = deque()

        def wait_for(most: int) -> None:
            while len(running) > most:
                running.popleft().result()
                advance(1)

        try:
            for number, task in enumerate(tasks):
                digest = hashlib.sha256(repr(task).encode()).hexdigest()
                steps.append(f'{number:07d}-{digest}')
                work = make, task, folder, steps[-1]
                if pool is None:
                    _make_part(*work)
                    advance(1)
                else:
                    running.append(pool.submit(_make_part, *work))
                    wait_for(2 * workers)
            wait_for(0)
        finally:
            for future in running:
                future.cancel()
    return PartFiles(folder, steps)


def prepare_in_parts(tool: str, out: Path, source: str,
                     tasks: Callable[[], Iterable[Any]], make: Callable[[Any],
                                                                        Part],
                     classes: Optional[TagClasses], inputs: Mapping[str, Any],
                     parameters: Mapping[str, Any], workers: int,
                     overwrite: bool, **facts: int) -> Tuple[Dict, bool]:
    """Make a file of captioned images as a job whose work is in parts.

    Args:
        out (Path): The file, with ``*_summary.json`` beside it.
        tasks (Callable): Gives the tasks, in a fixed order.
        classes (TagClasses, optional): The classes of the tags.
        inputs, parameters (Mapping): See :class:`~.job.Job`.
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
