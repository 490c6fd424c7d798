# Licensed under the Apache License, Version 2.0.
import hashlib
import json
import multiprocessing

import pytest
from mmengine.config import Config

from mmdet_clim.engine.fingerprint import (
    differences,
    open_run,
    read_fingerprint,
    run_fingerprint,
)
from mmdet_clim.version import __version__


def config(**changed):
    return Config(
        dict(
            dict(
                model=dict(type='A', sizes=(1, 2), width=None),
                hooks=[dict(type='H', interval=1),
                       dict(type='G')],
                randomness=dict(seed=0),
                work_dir='runs/a',
                evaluator=dict(out='runs/a/found'),
                resume=False), **changed))


def train(work_dir, print_, **options):
    """What a tool does, without the training."""
    with open_run(work_dir, print_, **options) as finished:
        if not finished:
            (work_dir / 'iter_1.pth').touch()
    return finished


def test_what_counts(tmp_path):
    whole = run_fingerprint(config())
    assert whole['version'] == __version__
    assert whole['config']['model'] == dict(type='A', sizes=[1, 2], width=None)
    assert json.loads(json.dumps(whole)) == whole
    # where it writes does not
    elsewhere = config(
        work_dir='/b', evaluator=dict(out='/b/found'), resume=True)
    assert run_fingerprint(elsewhere) == whole
    assert differences(whole, whole) == []


@pytest.mark.parametrize('changed, key, old, new', [
    (dict(model=dict(type='A', sizes=(1, 3), width=None)), 'model.sizes',
     '[1, 2]', '[1, 3]'),
    (dict(model=dict(type='A', sizes=(1, 2))), 'model.width', 'null',
     'not set'),
    (dict(hooks=[dict(type='H', interval=2),
                 dict(type='G')]), 'hooks.0.interval', '1', '2'),
    (dict(hooks=[dict(type='H', interval=True),
                 dict(type='G')]), 'hooks.0.interval', '1', 'true'),
    (dict(hooks=[]), 'hooks', '[{"type": "H", "interval": 1}, {"type": "G"}]',
     '[]'),
    (dict(randomness=dict(seed=1)), 'randomness.seed', '0', '1'),
    (dict(max_iters=9000), 'max_iters', 'not set', '9000'),
    (dict(model=int), 'model', '{"type": "A", "sizes": [1, 2], "width": null}',
     '"builtins.int"'),
])
def test_each_difference_is_named(changed, key, old, new):
    found = differences(
        run_fingerprint(config()), run_fingerprint(config(**changed)))
    assert found == [(key, old, new)]


def test_another_version():
    new = run_fingerprint(config())
    assert differences(dict(new, version='0.0.1'),
                       new) == [('version', '"0.0.1"', f'"{__version__}"')]


def test_files_are_known_by_their_content(tmp_path):
    for folder in 'ab':
        (tmp_path / folder).mkdir()
        (tmp_path / folder / 'x.json').write_text('{}')
    weights = tmp_path / 'w.pth'
    weights.write_bytes(b'1')

    def printed(folder='a'):
        return run_fingerprint(
            config(
                load_from=str(weights),
                data=dict(
                    data_root=f'{tmp_path}/{folder}/',
                    ann_file='x.json',
                    name='no.json')))['config']

    first = printed()
    digest = hashlib.sha256(b'1').hexdigest()[:16]
    assert first['load_from'] == f'file of sha256 {digest}'
    assert first['data']['ann_file'].startswith('file of sha256 ')
    assert first['data']['name'] == 'no.json'
    assert [key for key, *_ in differences(first, printed('b'))
            ] == ['data.data_root']
    (tmp_path / 'a/x.json').write_text('[]')
    weights.rename(tmp_path / 'v.pth')
    assert {key
            for key, *_ in differences(first, printed())
            } == {'data.ann_file', 'load_from'}
    weights.write_bytes(b'2')
    assert 'load_from' in dict(
        (key, old) for key, old, _ in differences(first, printed()))


def test_a_run_is_done_once_and_not_taken_for_another(tmp_path):
    work_dir = tmp_path / 'run'
    mine, other = (
        run_fingerprint(config(randomness=dict(seed=s))) for s in (0, 1))
    assert not train(work_dir, mine)
    assert train(work_dir, mine)
    assert read_fingerprint(work_dir) == mine
    with pytest.raises(
            FileExistsError,
            match=r'run: contains another run: randomness.seed is 0, '
            'wanted 1. .*--overwrite') as error:
        train(work_dir, other)
    assert '\n' not in str(error.value)
    assert (work_dir / 'iter_1.pth').exists() and train(work_dir, mine)
    # a log of the old run would be read as the new one's
    log = work_dir / '20261126_150000'
    log.mkdir()
    assert not train(work_dir, other, overwrite=True)
    assert train(work_dir, other) and not log.exists()
    # this one, too, can be done again
    assert not train(work_dir, other, overwrite=True)


def test_many_differences_are_counted(tmp_path):
    train(tmp_path, run_fingerprint(config()))
    new = config(**{name: 1 for name in 'abcdef'})
    with pytest.raises(FileExistsError, match='d is not set.*; and 2 more'):
        train(tmp_path, run_fingerprint(new))


def test_half_a_run_is_gone_on_with_by_its_own_settings_alone(tmp_path):
    mine, other = (run_fingerprint(config(lr=lr)) for lr in (1, 2))
    with pytest.raises(ZeroDivisionError), open_run(tmp_path, mine):
        raise ZeroDivisionError
    # nothing was lost: another one may have the work dir
    with pytest.raises(ZeroDivisionError), open_run(tmp_path, other):
        (tmp_path / 'iter_1.pth').touch()
        raise ZeroDivisionError
    with pytest.raises(FileExistsError, match='lr is 2, wanted 1'):
        train(tmp_path, mine)
    assert not train(tmp_path, other)


@pytest.mark.parametrize('left, message', [
    ('iter_3.pth', 'there is iter_3.pth, but no fingerprint.json'),
    ('finished', 'there is finished, but no fingerprint.json'),
])
def test_a_run_that_does_not_say_which_it_is(tmp_path, left, message):
    (tmp_path / left).touch()
    (tmp_path / 'captions.json').touch()
    with pytest.raises(FileExistsError, match=message):
        train(tmp_path, run_fingerprint(config()))
    assert not train(tmp_path, run_fingerprint(config()), overwrite=True)
    # what is no file of a run stays
    assert (tmp_path / 'captions.json').exists()


@pytest.mark.parametrize('content', ['{', '[]', '{"config": 1}'])
def test_a_broken_record(tmp_path, content):
    (tmp_path / 'fingerprint.json').write_text(content)
    (tmp_path / 'finished').touch()
    with pytest.raises(FileExistsError, match='fingerprint.json: expected'):
        train(tmp_path, run_fingerprint(config()))
    with pytest.raises(ValueError, match='fingerprint.json: expected'):
        read_fingerprint(tmp_path)


def test_one_process_at_a_time(tmp_path):
    print_ = run_fingerprint(config())

    def second():
        try:
            train(tmp_path, print_)
        except RuntimeError as error:
            assert 'another process is training' in str(error)
            raise SystemExit(3) from None

    with open_run(tmp_path, print_):
        process = multiprocessing.get_context('fork').Process(target=second)
        process.start()
        process.join()
    assert process.exitcode == 3
    assert train(tmp_path, print_)
