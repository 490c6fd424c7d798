# Licensed under the Apache License, Version 2.0.
import io
import os
import subprocess

import pytest

from mmdet_clim.engine import StepError, Steps, steps
from mmdet_clim.engine.steps import duration


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""

    class Clock:
        now = 100.

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(steps, 'time', clock)
    return clock


@pytest.mark.parametrize('seconds, text', [
    (0, '0 s'),
    (59.4, '59 s'),
    (59.6, '1 min 0 s'),
    (125, '2 min 5 s'),
    (601, '10 min'),
    (7199, '2 h 0 min'),
    (8000, '2 h 13 min'),
])
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_a_line_per_step_and_the_time_left(clock):
    stream = io.StringIO()
    told = Steps(
        'demo', {
            'a': dict(iteration=100, validation=20),
            'b': dict(iteration=200, validation=20)
        }, stream)
    assert told.left() == 340
    with told.step('a') as report:
        report('iteration', 0, 10)
        clock.now += 100
        # Half of it took 100 s where 50 s were expected: all iterations take
        # twice as long. 100 + 20 are left of a, 400 + 20 of b.
        report('iteration', 5, 10)
        assert told.left() == pytest.approx(540)
        clock.now += 100
        report('iteration', 10, 10)
        report('validation', 0, 4)
        clock.now += 5
        report('validation', 4, 4)
        assert told.left() == pytest.approx(400 + 5)
    assert told.left() == pytest.approx(405)
    assert told.names == ['b']
    assert stream.getvalue().splitlines() == [
        '== demo 1/2: a, about 2 min 0 s (5 min 40 s left in all)',
        '   iteration 5/10, 2 min 0 s left (9 min 0 s in all)',
        '   iteration 10/10, 20 s left (7 min 20 s in all)',
        '   done in 3 min 25 s',
    ]


def test_a_resumed_step_counts_from_where_it_was(clock):
    told = Steps('demo', {'a': dict(iteration=10)}, io.StringIO())
    with told.step('a') as report:
        report('iteration', 90, 100)
        clock.now += 10
        report('iteration', 95, 100)
        assert told.left() == pytest.approx(10)


def test_times_that_nobody_knows(clock):
    stream = io.StringIO()
    told = Steps('ablation', dict(a={}, b={}), stream)
    with told.step('a') as report:
        report('iteration', 0, 4)
        clock.now += 40
        report('iteration', 1, 4)
    assert stream.getvalue().splitlines() == [
        '== ablation 1/2: a', '   iteration 1/4, 2 min 0 s left',
        '   done in 40 s'
    ]


def test_a_terminal_writes_over_its_line(clock):

    class Terminal(io.StringIO):

        def isatty(self):
            return True

    stream = Terminal()
    told = Steps('demo', dict(a=dict(scene=1)), stream)
    with told.step('a') as report:
        report('scene', 0, 3)
        for done in 1, 2, 3:
            clock.now += 1
            report('scene', done, 3)
    assert stream.getvalue().count('\n') == 2
    assert stream.getvalue().count('\rscene') == 0
    assert stream.getvalue().count('\r   scene') == 3


def test_what_is_printed_goes_into_the_log(tmp_path, capfd):
    told = Steps('demo', dict(a={}, b={}))
    log = tmp_path / 'new' / 'log'
    with told.step('a', log):
        print('from Python')
        subprocess.run(['echo', 'from a child'], check=True)
        os.write(2, b'from a library\n')
    with pytest.raises(StepError) as error, told.step('b', log):
        raise ValueError('lr: expected a number\nand more')
    print('after')
    assert str(error.value) == ('b: ValueError: lr: expected a number; all '
                                f'of it: {log}')
    written = log.read_text()
    for line in ('from Python\n', 'from a child\n', 'from a library\n',
                 'Traceback', 'and more\n'):
        assert line in written
    out, err = capfd.readouterr()
    assert err == '' and out.splitlines() == [
        f'== demo 1/2: a; log: {log}', '   done in 0 s',
        f'== demo 2/2: b; log: {log}', 'after'
    ]
