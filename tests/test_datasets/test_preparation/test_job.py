# Licensed under the Apache License, Version 2.0.
"""Jobs: done once, resumed, published whole, alone in their folder."""
import json

import pytest

from mmdet_clim.datasets.preparation.files import locked_folder, whole_file
from mmdet_clim.datasets.preparation.job import Job, do_once, run_job


@pytest.fixture
def job(tmp_path):
    return Job('tool', tmp_path / 'out', ('a.txt', 'b.txt'), 'sum.json',
               {'in.json': 1}, {'size': 2})


def make(folder):
    for name in ('a.txt', 'b.txt'):
        (folder / name).write_text(f'content of {name}')
    return {'files': 2}


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_job_is_done_once(job):
    assert run_job(job, make) == ({'files': 2}, True)
    assert names(job.folder) == ['.sum.job.json', 'a.txt', 'b.txt', 'sum.json']
    assert run_job(job, None) == ({'files': 2}, False)
    # what was lost is made again
    (job.folder / 'b.txt').unlink()
    assert run_job(job, make) == ({'files': 2}, True)
    assert (job.folder / 'b.txt').read_text() == 'content of b.txt'
    # What no input tells has changed, such as images that came later.
    assert run_job(job, make, overwrite=True) == ({'files': 2}, True)


def test_what_would_be_lost_is_kept(job):
    run_job(job, make)
    (job.folder / 'a.txt').write_text('edited by hand')
    with pytest.raises(FileExistsError, match='a.txt: was changed since'):
        run_job(job, make)
    other = Job('tool', job.folder, job.outputs, job.summary, {'in.json': 3},
                {'size': 2})
    with pytest.raises(
            FileExistsError, match='a.txt: was made with other inputs in.js'):
        run_job(other, make)
    assert names(job.folder) == ['.sum.job.json', 'a.txt', 'b.txt', 'sum.json']
    assert run_job(other, make, overwrite=True)[1]
    assert (job.folder / 'a.txt').read_text() == 'content of a.txt'


def test_steps_are_kept_for_the_same_job_only(job, killed):
    done = []

    def step():
        done.append(1)
        return {'steps': len(done)}

    def die(folder):
        do_once(folder, 'first', step)
        raise killed

    def finish(folder):
        make(folder)
        return do_once(folder, 'first', step)

    with pytest.raises(killed):
        run_job(job, die)
    assert run_job(job, finish)[0] == {'steps': 1}
    # with other parameters all is done again
    other = Job('tool', job.folder, ('a.txt', 'b.txt'), 'sum2.json', {}, {})
    with pytest.raises(killed):
        run_job(other, die, overwrite=True)
    changed = Job('tool', job.folder, ('a.txt', 'b.txt'), 'sum2.json', {},
                  {'size': 3})
    assert run_job(changed, finish, overwrite=True)[0] == {'steps': 3}


@pytest.mark.parametrize('again', ['overwrite', 'version', 'same'])
def test_what_a_killed_run_left(job, monkeypatch, killed, again):
    """It is of use to the same job of the same version alone."""
    done = []

    def step():
        done.append(1)
        return {'steps': len(done)}

    def die(folder):
        do_once(folder, 'first', step)
        raise killed

    def finish(folder):
        make(folder)
        return do_once(folder, 'first', step)

    with pytest.raises(killed):
        run_job(job, die)
    if again == 'version':
        monkeypatch.setattr('mmdet_clim.datasets.preparation.job.__version__',
                            '999')
    run_job(job, finish, overwrite=again == 'overwrite')
    assert len(done) == (1 if again == 'same' else 2)


def test_files_of_another_revision_are_not_taken(job, monkeypatch):
    run_job(job, make)
    monkeypatch.setattr('mmdet_clim.datasets.preparation.job.REVISION', 99)
    with pytest.raises(FileExistsError, match='other version of this tool'):
        run_job(job, make)


def test_killed_while_files_are_published(job, monkeypatch, killed):
    import os
    replace = os.replace

    def die_at_b(source, target):
        if str(target) == str(job.folder / 'b.txt'):
            raise killed
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(killed):
        patch.setattr(os, 'replace', die_at_b)
        run_job(job, make)
    assert names(job.folder) == ['.sum.partial', 'a.txt']
    # nothing is made again, and nothing is in the way
    assert run_job(job, None) == ({'files': 2}, True)
    assert names(job.folder) == ['.sum.job.json', 'a.txt', 'b.txt', 'sum.json']


def test_one_process_at_a_time(job):
    with locked_folder(job.work_folder, 'first'):
        with pytest.raises(RuntimeError, match='another process is making'):
            run_job(job, make)
    assert run_job(job, make)[1]


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / 'a.json'
    with pytest.raises(ZeroDivisionError), whole_file(path) as file:
        file.write('half')
        raise ZeroDivisionError
    assert not path.exists()
    with whole_file(path) as file:
        json.dump('é\n', file)
    assert json.loads(path.read_text(encoding='utf-8')) == 'é\n'
