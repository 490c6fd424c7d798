# Licensed under the Apache License, Version 2.0.
"""Bars of progress, of one kind for all commands.

They are drawn on standard error where that is a terminal, after a second, and
nowhere else: what is piped, logged or run by a service gets none.
"""
import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from functools import partial
from typing import Optional, TypeVar

from rich import filesize
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

Item = TypeVar('Item')
#: Seconds of work that are not worth a bar.
PATIENCE = 1.
#: The bars of this process: rich before 14.1 draws one display at a time.
_display: Optional['_Display'] = None


class _Display(Progress):
    """Bars of what takes a while."""

    def get_renderables(self) -> Iterator[RenderableType]:
        """The bars as a table."""
        yield self.make_tasks_table(
            [task for task in self.tasks if (task.elapsed or 0) > PATIENCE])


class _Count(ProgressColumn):
    """How much of how much, in bytes where the task is one of bytes."""

    def render(self, task: Task) -> Text:
        """The column of a bar."""
        of = '?' if task.total is None else self._number(task, task.total)
        return Text(f'{self._number(task, task.completed)}/{of}')

    @staticmethod
    def _number(task: Task, value: float) -> str:
        if task.fields['in_bytes']:
            return filesize.decimal(int(value))
        return str(int(value))


@contextmanager
def progress(title: str,
             total: float | None = None,
             done: int = 0,
             in_bytes: bool = False) -> Iterator[Callable[[float], None]]:
    """Draw a bar while something is done.

    Bars may be begun while others are drawn; they end with the outermost.

    Args:
        title (str): What is done.
        total (float, optional): How much there is to do. None: not known.
        done (int): How much was done before.
        in_bytes (bool): Whether these are bytes.

    Yields:
        Callable[[float], None]: To be told how much more is done.
    """
    if not sys.stderr.isatty():
        yield lambda more: None
        return
    global _display
    outermost = _display is None
    if _display is None:
        _display = _Display(
            TextColumn('{task.description}', markup=False),
            BarColumn(),
            _Count(),
            TimeRemainingColumn(),
            console=Console(file=sys.stderr))
        _display.start()
    display = _display
    task = display.add_task(
        title, total=total, completed=done, in_bytes=in_bytes)
    try:
        yield partial(display.advance, task)
    finally:
        if outermost:
            display.stop()
            _display = None
        else:
            display.remove_task(task)


def track(items: Iterable[Item],
          title: str,
          total: float | None = None) -> Iterator[Item]:
    """Draw a bar while someone goes through some items.

    Args:
        items (Iterable): What to give out.
        title (str): What is done with them.
        total (float, optional): How many. None takes their length, if they
            have one.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress(title, total) as advance:
        for item in items:
            yield item
            advance(1)
