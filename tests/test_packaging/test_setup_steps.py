# Licensed under the Apache License, Version 2.0.
"""The scripts that `make setup` calls, and what make would do."""
import os
import pty
import re
import resource
import runpy
import signal
import site
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest


def make(repository, *args, options=('--dry-run', )):
    """Not as a part of the make that runs the tests."""
    env = {k: v for k, v in os.environ.items() if not k.startswith('MAKE')}
    return subprocess.run(['make', *options, *args],
                          cwd=repository,
                          env=env,
                          capture_output=True,
                          text=True)


def test_no_environment_is_touched_where_none_is_named(repository):
    done = make(repository, 'test', 'VENV=', f'PYTHON={sys.executable}')
    assert done.returncode == 0, done.stderr
    assert 'install' not in done.stdout
    assert f'{sys.executable} -m pytest' in done.stdout


def test_a_new_environment_gets_the_torch_that_was_asked_for(
        repository, tmp_path):
    venv = tmp_path / 'venv'
    done = make(repository, 'setup', f'VENV={venv}', 'TORCH=2.9.1',
                f'PYTHON={sys.executable}')
    assert done.returncode == 0, done.stderr
    assert f'{sys.executable} -m venv {venv}' in done.stdout
    assert 'torch==2.9.1' in done.stdout
    assert '-r requirements/openmmlab.txt' in done.stdout


def test_finished_steps_are_not_done_again(repository, tmp_path):
    steps = tmp_path / 'venv' / '.steps'
    steps.mkdir(parents=True)
    python = tmp_path / 'venv' / 'bin' / 'python'
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    # Newer than every requirement: as after these steps.
    for name in ('venv', 'build-tools', 'torch-2.13.0', 'requirements'):
        (steps / name).touch()
    done = make(repository, 'setup', f'VENV={tmp_path / "venv"}')
    assert '-m venv' not in done.stdout
    assert '-r requirements/runtime.txt' not in done.stdout
    assert '-r requirements/openmmlab.txt' in done.stdout
    # As after an upgrade of the system's Python.
    python.unlink()
    python.symlink_to(tmp_path / 'gone')
    done = make(repository, 'setup', f'VENV={tmp_path / "venv"}')
    assert done.returncode == 2 and not done.stdout
    assert f'{python}: expected a Python, which was removed' in done.stderr


@pytest.mark.parametrize('python', ['', '/no/python', 'python2.7', 'false'])
def test_a_python_that_is_none(repository, tmp_path, python):
    done = make(
        repository,
        'setup',
        f'PYTHON={python}',
        f'VENV={tmp_path / "venv"}',
        options=())
    assert done.returncode == 2
    assert done.stdout == (
        f'PYTHON={python}: expected CPython 3.10-3.12; give its path\n')
    assert not (tmp_path / 'venv').exists()


def test_unfinished_installs_are_forgotten(repository, tmp_path, monkeypatch,
                                           capsys):
    for name in ('whole-1.0', 'half-1.0'):
        (tmp_path / f'{name}.dist-info').mkdir()
        (tmp_path / f'{name}.dist-info' / 'METADATA').touch()
    (tmp_path / 'whole-1.0.dist-info' / 'INSTALLER').write_text('pip')
    monkeypatch.setattr(site, 'getsitepackages', lambda: [str(tmp_path)])
    monkeypatch.setattr(sys, 'argv', ['drop_unfinished_installs.py'])
    runpy.run_path(
        str(repository / 'tools/misc/drop_unfinished_installs.py'),
        run_name='__main__')
    assert (tmp_path / 'whole-1.0.dist-info').exists()
    assert not (tmp_path / 'half-1.0.dist-info').exists()
    assert 'half-1.0' in capsys.readouterr().out


def test_another_python_than_the_environment_has(repository, tmp_path):
    other = tmp_path / 'python'
    other.write_text('#!/bin/sh\necho 3.9\n')
    other.chmod(0o755)
    done = subprocess.run([
        sys.executable, repository / 'tools/misc/check_own_environment.py',
        other
    ],
                          capture_output=True,
                          text=True)
    assert done.returncode == 1
    assert 'is 3.9: give another VENV=' in done.stderr


def test_a_fork_of_mmdet_is_left_alone(repository, tmp_path):
    # An environment whose only package is an mmdet of another distribution.
    (tmp_path / 'mmdet').mkdir()
    (tmp_path / 'mmdet' / '__init__.py').touch()
    (tmp_path / 'onedl_mmdetection-3.4.5.dist-info').mkdir()
    (tmp_path / 'onedl_mmdetection-3.4.5.dist-info' /
     'METADATA').write_text('Name: onedl-mmdetection\nVersion: 3.4.5\n')
    script = repository / 'tools/misc/check_own_environment.py'
    code = (f'import sys; sys.path.append({str(tmp_path)!r}); '
            f'sys.argv = ["", {sys.executable!r}]; import runpy; '
            f'runpy.run_path({str(script)!r}, run_name="__main__")')
    done = subprocess.run([sys.executable, '-S', '-c', code],
                          env={},
                          capture_output=True,
                          text=True)
    assert done.returncode == 1
    assert 'fork of MMDetection, which is left alone' in done.stderr
    assert 'make ... VENV=' in done.stderr


@pytest.mark.parametrize('script, usage', [
    ('dist_train.sh', 'CONFIG PROCESSES'),
    ('dist_test.sh', 'CONFIG CHECKPOINT PROCESSES'),
])
def test_distributed_starts_say_what_they_need(repository, script, usage):
    done = subprocess.run([repository / 'tools' / script],
                          capture_output=True,
                          text=True)
    assert done.returncode == 2
    assert usage in done.stderr


@pytest.fixture
def step(repository, tmp_path):
    """Run a step of the set-up whose command is some Python."""

    def run(name, code, **options):
        command = [
            sys.executable, repository / 'tools/misc/setup_step.py', name,
            f'the {name}', tmp_path / 'log.txt', '--', sys.executable, '-c',
            code
        ]
        limit = options.pop('limit', None)
        return subprocess.run(
            command,
            preexec_fn=limit
            and partial(resource.setrlimit, resource.RLIMIT_FSIZE,
                        (limit, limit)),
            stdout=options.pop('stdout', subprocess.PIPE),
            stderr=subprocess.STDOUT,
            text=True,
            env={
                **os.environ, 'MAKE_RUN': options.pop('make_run', '1')
            })

    return run


def test_a_step_is_one_line(step, tmp_path):
    log = tmp_path / 'log.txt'
    done = step('build-tools', 'print("Collecting ninja")')
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == f'output of pip and compilers: {log}'
    assert re.fullmatch(
        r'set-up 2/7, the build-tools: \d+ s, about \d+ min left', lines[1])
    assert len(lines) == 2
    # The log is named once in a run of make, and begun anew by the next one.
    assert len(step('torch', 'print("x")').stdout.splitlines()) == 1
    assert 'Collecting ninja' in log.read_text()
    done = step('package', 'print("last")', make_run='2')
    assert re.fullmatch(r'set-up 7/7, the package: \d+ s',
                        done.stdout.splitlines()[1])
    assert log.read_text() == 'make run 2\n\n== the package\nlast\n'


def test_a_step_that_fails_shows_the_end_of_its_output(step, tmp_path):
    done = step(
        'mmcv', 'import sys\nfor i in range(100): print("line", i)\n'
        'sys.exit("no compiler")')
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert re.fullmatch(r'set-up 6/7, the mmcv: failed after \d+ s', lines[1])
    assert lines[2:] == [
        *(f'    line {i}' for i in range(81, 100)), '    no compiler',
        f'the mmcv: failed, see {tmp_path / "log.txt"}'
    ]
    # A program that was killed is no success either.
    assert step('mmcv', 'import os; os.kill(os.getpid(), 9)').returncode == 1


@pytest.mark.parametrize('printed, cause', [
    ('ERROR: Could not install packages due to an OSError: [Errno 28] No '
     'space left on device', 'there is no space left'),
    ("WARNING: Retrying (Retry(total=0, connect=None)) after ...: '/simple/x'",
     'pip did not reach the package index'),
])
def test_a_step_that_fails_says_why(step, printed, cause):
    """What pip says last without a network: versions have a conflict."""
    done = step(
        'torch', f'import sys; print({printed!r})\n'
        'for i in range(40): print("ResolutionImpossible")\nsys.exit(1)')
    last = done.stdout.splitlines()[-1]
    assert f'log.txt: {cause}' in last and last.endswith('same command again')


def test_a_log_that_can_not_grow(step, tmp_path):
    """Nobody would read what the command prints, and it would wait."""
    (tmp_path / 'log.txt').write_text('make run 1\n' + 'x' * 4000)
    done = step(
        'torch', 'import sys; print("y\\n" * 20_000); sys.exit(3)', limit=4096)
    assert done.returncode == 3
    assert 'there is no space left on the disk' in done.stdout
    assert (tmp_path / 'log.txt').stat().st_size == 4096


def test_a_log_that_can_not_be_written(step, tmp_path):
    (tmp_path / 'log.txt').mkdir()
    done = step('torch', '')
    assert done.returncode == 1
    assert done.stdout.startswith('the torch: ')
    assert len(done.stdout.splitlines()) == 1
    assert str(tmp_path / 'log.txt') in done.stdout


def test_a_folder_with_a_space_is_refused(repository, tmp_path):
    folder = tmp_path / 'my code'
    folder.mkdir()
    (folder / 'Makefile').symlink_to(repository / 'Makefile')
    for word, venv in (('VENV=venv', folder / 'venv'), (f'VENV={folder}',
                                                        folder)):
        done = make(folder, 'setup', word)
        assert done.returncode == 2 and not done.stdout
        assert f'{venv}: expected a path without spaces' in done.stderr
        assert len(done.stderr.splitlines()) == 1
    done = make(folder, 'setup', f'VENV={tmp_path / "venv"}')
    assert 'spaces' not in done.stderr


def test_on_a_terminal_the_line_is_rewritten(step):
    here, terminal = pty.openpty()
    step(
        'mmcv', 'import time; print("progress: 40 %, compiling", flush=True)\n'
        'time.sleep(1.5)',
        stdout=terminal)
    output = os.read(here, 10000).decode()
    os.close(terminal)
    os.close(here)
    assert re.search(
        r'\r\x1b\[Kset-up 6/7, the mmcv: 40 %, about \d+ \w+ left '
        r'of the set-up, compiling', output)
    assert output.endswith(' left\r\n')


def _heed_interrupts():
    """What runs in the background of a shell inherits that it ignores them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_what_a_stopped_step_started_is_stopped(repository, tmp_path, number):
    """A compiler that goes on by itself would write beside the next one."""
    code = ('import os, subprocess, sys\n'
            'child = subprocess.Popen(["sleep", "600"])\n'
            'print(os.getpid(), child.pid, flush=True)\n'
            'child.wait()')
    log = tmp_path / 'log.txt'
    process = subprocess.Popen([
        sys.executable, repository / 'tools/misc/setup_step.py', 'mmcv',
        'the mmcv', log, '--', sys.executable, '-c', code
    ],
                               stdout=subprocess.PIPE,
                               text=True,
                               preexec_fn=_heed_interrupts)
    while not log.exists() or not re.search(r'^\d+ \d+$', log.read_text(),
                                            re.MULTILINE):
        time.sleep(0.05)
    started = re.search(r'^(\d+) (\d+)$', log.read_text(), re.MULTILINE)
    process.send_signal(number)
    output = process.communicate()[0]
    assert process.returncode == 130
    assert output.splitlines()[-1] == (
        'set-up 6/7, the mmcv: stopped; the same command resumes here')
    for pid in map(int, started.groups()):
        while Path(f'/proc/{pid}').exists() and ') Z ' not in Path(
                f'/proc/{pid}/stat').read_text():
            time.sleep(0.05)
    assert not list(tmp_path.glob('tmp*'))


@pytest.fixture
def progress(repository, tmp_path):
    """What is made of the output of pip, in an environment."""
    module = runpy.run_path(str(repository / 'tools/misc/setup_step.py'))
    return module['Progress'](4, tmp_path / 'tmp', tmp_path)


def test_progress_of_pip(progress, tmp_path):
    assert progress.state() == (0, '')
    progress.read('Collecting torch==2.13.0 (from -r x)\n')
    assert progress.state() == (0.125, 'collecting torch')
    progress.read('  Downloading torch-2.13.0-cp312.whl (531.2 MB)\n')
    folder = tmp_path / 'tmp' / 'pip-unpack-x'
    folder.mkdir(parents=True)
    # An earlier file is not this one.
    (folder / 'numpy-2.4-cp312.whl').write_bytes(b'x' * 3_000_000)
    (folder / 'torch-2.13.0-cp312.whl').write_bytes(b'x' * 2_000_000)
    assert progress.state() == (0.125, 'downloading torch, 2 of 531 MB')
    progress.read('Requirement already satisfied: six in x (1.0)\n')
    progress.read('  Downloading tiny.whl (8.1 kB)\n')
    assert progress.state() == (0.25, 'collecting six')
    for _ in range(9):
        progress.read('Collecting more\n')
    assert progress.state()[0] == 0.5
    packages = tmp_path / 'lib' / 'python3' / 'site-packages'
    for name in ('old', 'torch', 'half'):
        (packages / f'{name}-1.dist-info').mkdir(parents=True)
    (packages / 'old-1.dist-info' / 'INSTALLER').touch()
    os.utime(packages / 'old-1.dist-info' / 'INSTALLER', (0, 0))
    progress.read('Installing collected packages: torch, six\n')
    assert progress.state() == (0.5, 'installing, 0 of 2 packages')
    file = packages / 'torch-1.dist-info' / 'INSTALLER'
    file.touch()
    os.utime(file, (2**33, 2**33))
    assert progress.state() == (0.75, 'installing, 1 of 2 packages')


def test_the_time_left_follows_the_pace(repository, tmp_path):
    module = runpy.run_path(str(repository / 'tools/misc/setup_step.py'))
    step = module['Step']
    plan = dict(a=step(60), b=step(100), c=step(40))
    file = tmp_path / 'times'
    first = module['Clock'](plan, 'a', file)
    assert first.left(0) == pytest.approx(200, abs=1)
    # Twice as slow as expected: (60 + 180) / (60 + 60).
    file.write_text('a 180\n')
    second = module['Clock'](plan, 'b', file)
    assert second.number == 2
    assert second.left(0) == pytest.approx(280, abs=1)
    # 50 s for an eighth: half of that pace, half of the expected one.
    second._start -= 50
    assert second.left(0.125) == pytest.approx(
        (200 + 400) / 2 - 50 + 80, abs=1)
    # The time goes on while no more is known to be done.
    second._start -= 50
    assert second.left(0.125) == pytest.approx(
        (200 + 400) / 2 - 100 + 80, abs=1)
    # 100 s for a half: that pace alone.
    assert second.left(0.5) == pytest.approx(100 + 80, abs=1)
    second._start -= 150
    assert second.left(0.5) == pytest.approx(0.05 * 200 + 80, abs=1)
    assert second.finish() == pytest.approx(80)
    taken = dict(line.split() for line in file.read_text().splitlines())
    assert taken['a'] == '180.0'
    assert float(taken['b']) == pytest.approx(250, abs=1)
