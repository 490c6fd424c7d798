# Licensed under the Apache License, Version 2.0.
"""The steps of a long command: a line each, with the time that is left."""
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO

from .training_runs import Report

#: Seconds between two lines of progress in a file and on a terminal.
_INTERVALS = {False: 30., True: .5}
#: Part of a phase from which on its own pace says how long it takes.
_TELLING = 0.05


class StepError(RuntimeError):
    """A step failed; its message is one line and names the log."""


class Steps:
    """Prints one line per step, and how far it is.

    ::

        == demo 2/7: (1) boxes, about 2 min (9 min left in all); log: ...
           iteration 300/600, 1 min 5 s left (8 min in all)
           done in 2 min 12 s

    On a terminal the line of progress is written over; elsewhere there is a
    new one every half minute.

    A step consists of phases. Where a phase takes longer or shorter than
    expected, so do the same phases of the steps to come.

    Args:
        name (str): Of the command.
        plan (Mapping[str, Mapping[str, float]]): By step and phase (such as
            ``'iteration'``), the seconds it is expected to take. No phases
            where that is not known.
        stream (IO, optional): Where to print; standard output as it is now,
            also while :meth:`step` has it elsewhere.
    """

    def __init__(self,
                 name: str,
                 plan: Mapping[str, Mapping[str, float]],
                 stream: IO[str] | None = None) -> None:
        self.name = name
        self._plan: dict[str, dict[str, float]] = {
            step: dict(phases)
            for step, phases in plan.items()
        }
        self._count = len(plan)
        self._is_known = all(plan.values())
        self._stream = stream or os.fdopen(
            os.dup(sys.stdout.fileno()), 'w', buffering=1)
        #: Of the phases that are done: seconds taken, seconds expected.
        self._taken: dict[str, list[float]] = {}
        self._phases: dict[str, float] = {}
        self._phase: str | None = None
        self._first = self._began = self._printed = 0.
        self._part = 0.

    @property
    def names(self) -> list[str]:
        """The steps that are left."""
        return list(self._plan)

    def say(self, text: str) -> None:
        """Print a line."""
        self._stream.write(f'{text}\n')
        self._stream.flush()

    def left(self) -> float:
        """Seconds until all steps are done, as far as one can tell."""
        return self._left_of_step() + sum(seconds * self._pace(phase)
                                          for phases in self._plan.values()
                                          for phase, seconds in phases.items())

    @contextmanager
    def step(self, name: str, log: Path | None = None) -> Iterator[Report]:
        """One of the steps of the plan.

        Args:
            name (str): Of the plan.
            log (Path, optional): Gets all that is printed meanwhile.

        Yields:
            Callable: To be told how far it is: the phase, how many are done,
            how many there are.

        Raises:
            StepError: If an exception ended the step. Its traceback is in the
                log.
        """
        total = self.left()
        self._phases = self._plan.pop(name)
        head = (f'== {self.name} {self._count - len(self._plan)}/'
                f'{self._count}: {name}')
        if self._is_known:
            head += (f', about {duration(self._left_of_step())} '
                     f'({duration(total)} left in all)')
        self.say(head + (f'; log: {log}' if log else ''))
        began = time.monotonic()
        try:
            with output_to(log) if log else nullcontext():
                yield self._report
        except Exception as error:
            self._clear()
            lines = str(error).strip().splitlines() or ['']
            where = f'; all of it: {log}' if log else ''
            raise StepError(f'{name}: {type(error).__name__}: '
                            f'{lines[0]}{where}') from error
        self._end_phase()
        self._phases, self._phase = {}, None
        self._clear()
        self.say(f'   done in {duration(time.monotonic() - began)}')

    def _report(self, phase: str, done: int, total: int) -> None:
        now = time.monotonic()
        if phase != self._phase:
            self._end_phase()
            self._phase, self._first, self._began = phase, done, now
            self._printed = now
        self._part = ((done - self._first) /
                      (total - self._first) if total > self._first else 1.)
        terminal = self._stream.isatty()
        if now - self._printed < _INTERVALS[terminal]:
            return
        self._printed = now
        line = f'   {phase} {done}/{total}'
        if self._is_known:
            line += (f', {duration(self._left_of_step())} left '
                     f'({duration(self.left())} in all)')
        elif self._part >= _TELLING:
            left = (now - self._began) * (1 / self._part - 1)
            line += f', {duration(left)} left'
        if terminal:
            self._stream.write(f'\r{line}\x1b[K')
            self._stream.flush()
        else:
            self.say(line)

    def _clear(self) -> None:
        if self._stream.isatty():
            self._stream.write('\r\x1b[K')

    def _end_phase(self) -> None:
        """Remember how long the phase took, which was expected once."""
        if self._phase in self._phases:
            taken = self._taken.setdefault(self._phase, [0., 0.])
            taken[0] += time.monotonic() - self._began
            taken[1] += self._phases.pop(self._phase)
        self._part = 0.

    def _pace(self, phase: str) -> float:
        """Seconds that a phase takes per expected second."""
        taken, expected = self._taken.get(phase, (0., 0.))
        if phase == self._phase and phase in self._phases \
                and self._part >= _TELLING:
            taken += time.monotonic() - self._began
            expected += self._part * self._phases[phase]
        return taken / expected if expected else 1.

    def _left_of_step(self) -> float:
        return sum(seconds * self._pace(phase) *
                   (1 - self._part if phase == self._phase else 1)
                   for phase, seconds in self._phases.items())


def duration(seconds: float) -> str:
    """Seconds as one reads them: ``45 s``, ``2 min 5 s``, ``12 min``."""
    seconds = round(seconds)
    if seconds < 60:
        return f'{seconds} s'
    if seconds < 600:
        return f'{seconds // 60} min {seconds % 60} s'
    minutes = round(seconds / 60)
    if minutes < 120:
        return f'{minutes} min'
    return f'{minutes // 60} h {minutes % 60} min'


@contextmanager
def output_to(log: Path) -> Iterator[None]:
    """Write what this process and its children print to the end of a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    # Where these are no longer what the process started with, too.
    numbers = {1, 2, sys.stdout.fileno(), sys.stderr.fileno()}
    kept = {number: os.dup(number) for number in numbers}
    with open(log, 'a') as file:
        for number in kept:
            os.dup2(file.fileno(), number)
    try:
        yield
    except Exception:
        os.write(2, traceback.format_exc().encode())
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, old in kept.items():
            os.dup2(old, number)
            os.close(old)
