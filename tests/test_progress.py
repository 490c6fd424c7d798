# Licensed under the Apache License, Version 2.0.
"""Bars are drawn on a terminal, after a while, and nowhere else."""
import io
import re
from types import SimpleNamespace

import pytest
import rich.console

from mmdet_clim import progress as module
from mmdet_clim.progress import progress, track


class Terminal(io.StringIO):
    """What rich takes for one."""

    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """A terminal as standard error, and no waiting for a bar."""
    stream = Terminal()
    monkeypatch.setenv('TERM', 'xterm')
    monkeypatch.setenv('COLUMNS', '100')
    # Pytest has its own sys.stderr again when a test begins.
    monkeypatch.setattr(module, 'sys', SimpleNamespace(stderr=stream))
    monkeypatch.setattr(module, 'PATIENCE', 0)
    return stream


def lines_of(stream):
    """The last states of the lines that were drawn."""
    text = re.sub(r'\x1b\[[\d;?]*[a-zA-Z]', '', stream.getvalue())
    return [line.strip() for line in re.split('[\r\n]', text) if line.strip()]


def test_a_bar_of_items(terminal):
    assert list(track('abc', 'letters')) == ['a', 'b', 'c']
    last = lines_of(terminal)[-1]
    assert last.startswith('letters ') and ' 3/3 ' in last


@pytest.mark.parametrize('items, total, count', [
    ([], None, '0/0'),
    (iter('ab'), None, '2/?'),
    (iter('ab'), 4, '2/4'),
])
def test_totals(terminal, items, total, count):
    list(track(items, 'x', total))
    with progress('y', 1) as advance:
        advance(1)
    assert module._display is None
    shown = [line for line in lines_of(terminal) if line.startswith('x')]
    assert count in shown[-1].split()


def test_bytes_that_were_there_before(terminal):
    with progress('file [part].bin', 4000, 1000, in_bytes=True) as advance:
        advance(2000)
    assert '3.0 kB/4.0 kB' in lines_of(terminal)[-1]
    assert lines_of(terminal)[-1].startswith('file [part].bin ')


def test_bars_within_a_bar(terminal):
    """Rich alone draws one display at a time, and raises at the second."""
    for _ in track(range(2), 'parts'):
        with progress('inner', 5) as advance:
            advance(5)
    assert module._display is None
    drawn = lines_of(terminal)
    assert ' 2/2 ' in drawn[-1] and drawn[-1].startswith('parts ')


def test_an_error_ends_the_bar(terminal):
    with pytest.raises(KeyError):
        for item in track([1], 'x'):
            raise KeyError(item)
    with progress('y', 2) as advance:
        advance(1)
    assert '1/2' in lines_of(terminal)[-1]


def test_short_work_has_no_bar(terminal, monkeypatch):
    monkeypatch.setattr(module, 'PATIENCE', 60)
    list(track(range(9), 'quick'))
    assert 'quick' not in terminal.getvalue()


@pytest.mark.parametrize('force', [{}, dict(FORCE_COLOR='1')])
def test_nothing_is_drawn_into_a_file(monkeypatch, capsys, force):
    """As little where a service asks for colours."""
    for name, value in force.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(module, 'PATIENCE', 0)
    monkeypatch.setattr(rich.console, 'Console', None)
    assert list(track([1, 2], 'x')) == [1, 2]
    with progress('y', 2) as advance:
        advance(2)
    assert capsys.readouterr() == ('', '')


def test_every_bar_is_of_this_kind(repository):
    """What else draws bars is used in no other module, tool or benchmark."""
    for folder in ('mmdet_clim', 'tools', 'benchmarks'):
        for path in (repository / folder).rglob('*.py'):
            text = path.read_text(encoding='utf-8')
            if path.name != 'progress.py':
                assert not re.search(
                    r'rich\.progress|\btqdm\b|track_iter_progress|ProgressBar',
                    text), path
