# Licensed under the Apache License, Version 2.0.
"""The scripts that `make setup` calls, and what make would do."""
import runpy
import site
import subprocess
import sys

import pytest


def make(repository, *args):
    return subprocess.run(['make', '--dry-run', *args],
                          cwd=repository,
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
    # Newer than every requirement: as after these steps.
    for name in ('venv', 'build-tools', 'torch-2.13.0', 'requirements'):
        (steps / name).touch()
    done = make(repository, 'setup', f'VENV={tmp_path / "venv"}')
    assert '-m venv' not in done.stdout
    assert '-r requirements/runtime.txt' not in done.stdout
    assert '-r requirements/openmmlab.txt' in done.stdout


def test_unfinished_installs_are_forgotten(repository, tmp_path, monkeypatch,
                                           capsys):
    for name in ('whole-1.0', 'half-1.0'):
        (tmp_path / f'{name}.dist-info').mkdir()
        (tmp_path / f'{name}.dist-info' / 'METADATA').touch()
    (tmp_path / 'whole-1.0.dist-info' / 'INSTALLER').write_text('pip')
    monkeypatch.setattr(site, 'getsitepackages', lambda: [str(tmp_path)])
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
