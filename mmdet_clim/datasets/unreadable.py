# Licensed under the Apache License, Version 2.0.
"""What a data set does with a sample that cannot be read."""
import logging
from collections.abc import Callable
from multiprocessing.context import get_spawning_popen
from typing import Any

import torch
from mmengine.logging import print_log

from mmdet_clim.checks import check_range

from .images import UnreadableImageError

#: So many are named one by one, in all processes together.
NAMED = 20


class NoReadableImageError(UnreadableImageError):
    """Not one of many samples in a row can be read."""


class UnreadableImages:
    """Notes samples that could not be read, and reports some of them.

    The notes of a data set are in memory that the workers of a data loader
    share, so that each sample is reported once and the main process knows
    all. What is replaced depends on the order of the samples alone.

    Args:
        owner (str): Who reads them; starts each message.
        report_every (int): The first ones are reported, then one of each
            this many.

    Raises:
        ValueError: If ``report_every`` is below 1.
    """

    def __init__(self, owner: str, report_every: int = 100) -> None:
        check_range(1, report_every=report_every)
        self.owner = owner
        self.report_every = report_every
        #: Replacements in this process.
        self.count = 0
        self._noted: torch.Tensor | None = None

    def watch(self, size: int) -> None:
        """Note samples by their index from now on, in all processes."""
        if self._noted is None or len(self._noted) != size:
            self._noted = torch.zeros(size, dtype=torch.uint8).share_memory_()

    def __getstate__(self) -> dict:
        state = dict(vars(self))
        # A process that is being started shares the notes, a copy does not.
        if self._noted is not None and get_spawning_popen() is None:
            state['_noted'] = len(self._noted)
        return state

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        if isinstance(self._noted, int):
            size, self._noted = self._noted, None
            self.watch(size)

    @property
    def indices(self) -> list[int]:
        """Of the samples that could not be read, in any process."""
        if self._noted is None:
            return []
        return self._noted.nonzero().flatten().tolist()

    def add(self, reason: str, index: int | None = None) -> None:
        """Note one, and warn if it is its turn.

        Args:
            reason (str): Which image, and why.
            index (int, optional): Of the sample; then it is reported once.
        """
        self.count += 1
        number = self.count
        if index is not None and self._noted is not None:
            if self._noted[index]:
                return
            self._noted[index] = 1
            number = int(self._noted.sum())
        if number <= NAMED or number % self.report_every == 0:
            print_log(
                f'{self.owner}: unreadable image {number}, replaced: {reason}',
                logger='current',
                level=logging.WARNING)


def replaced(read: Callable[[int], Any], index: int, size: int, tries: int,
             unreadable: UnreadableImages) -> Any:
    """A sample, or the next one that can be read.

    The next in order, not a random one, so that a run and its repetition see
    the same data.

    Args:
        read (Callable): Gives the sample of an index; None counts as one that
            cannot be read, as does any error: a file that is there may fail
            in any transform, for instance in a resize that it is too thin
            for.
        index (int): The sample that is asked for.
        tries (int): At most so many in a row.
        unreadable (UnreadableImages): Notes those that are replaced.

    Raises:
        NoReadableImageError: If none of them can be read.
        MemoryError: As it is; it says nothing of an image.
    """
    tries = min(tries, size)
    for step in range(tries):
        current = (index + step) % size
        try:
            data = read(current)
            reason = f'the pipeline made nothing of sample {current}'
        except (MemoryError, NoReadableImageError):
            raise
        except Exception as error:
            data, reason = None, describe(error, current)
        if data is not None:
            return data
        unreadable.add(reason, current)
    raise NoReadableImageError(
        f'{unreadable.owner}: none of {tries} samples from index {index} on '
        f'can be read, the last: {reason}')


def describe(error: Exception, index: int) -> str:
    """An error in a line, with the number of the sample."""
    if isinstance(error, UnreadableImageError):
        return f'sample {index}, {error}'
    lines = str(error).strip().splitlines() or ['']
    return f'sample {index}, {type(error).__name__}: {lines[0]}'
