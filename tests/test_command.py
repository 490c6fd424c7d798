# Licensed under the Apache License, Version 2.0.
"""A mistake is one line, a bug keeps its traceback."""
import pickle
import re

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch.utils.data import DataLoader, Dataset

from mmdet_clim.command import is_mistake, one_line, run_command
from mmdet_clim.datasets.vocabulary import build_vocabulary


def error_of(function, *args):
    try:
        function(*args)
    except Exception as error:
        return error
    raise AssertionError('no error')


def read_config(tmp_path, text):
    (tmp_path / 'config.py').write_text(text)
    return Config.fromfile(tmp_path / 'config.py')


@pytest.mark.parametrize('function, args, line', [
    (build_vocabulary, (['a', 'a'], ), "given twice: ['a']"),
    (build_vocabulary, ('none.txt', ), 'none.txt does not exist'),
    (Config.fromfile, ('none.py', ), 'none.py'),
    (MODELS.build,
     (dict(type='mmdet.NoSuchModel'), ), 'mmdet.NoSuchModel is not in the'),
    (MODELS.build, (dict(type='mmdet.ResNet', depht=18), ), "'depht'"),
    (open, ('/none/of/it', ), '/none/of/it'),
])
def test_mistakes(function, args, line):
    error = error_of(function, *args)
    assert is_mistake(error)
    assert line in one_line(error) and '\n' not in one_line(error)


@pytest.mark.parametrize('text, line', [
    ('model = dict(\n', 'config.py: SyntaxError: .*line 1'),
    ('model = dict(type=Foo)\n', "config.py: NameError: name 'Foo' is not"),
    ("_base_ = ['none.py']\n", 'none.py'),
])
def test_mistakes_in_configs(tmp_path, text, line):
    error = error_of(read_config, tmp_path, text)
    assert is_mistake(error)
    assert re.search(line, one_line(error))


def test_bugs():

    class Broken:

        def use(self):
            return [][3]

    for function in (lambda: 1 + '', lambda: {}['x'], Broken().use,
                     lambda: int('x'), lambda: torch.ones(2) @ torch.ones(3)):
        assert not is_mistake(error_of(function))
    assert not is_mistake(ValueError('never raised'))


class Data(Dataset):

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return build_vocabulary(['a', 'A'])


class BuggyData(Data):

    def __getitem__(self, index):
        return [][1]


def test_errors_of_workers():
    error = error_of(list, DataLoader(Data(), num_workers=1))
    assert is_mistake(error)
    assert one_line(error).startswith('ValueError: vocabulary: class names')
    assert not is_mistake(
        error_of(list, DataLoader(BuggyData(), num_workers=1)))


def test_the_command(capsys, monkeypatch):
    monkeypatch.delenv('MMDET_CLIM_TRACEBACK', raising=False)

    def mistake():
        build_vocabulary([])

    def bug():
        return 1 + ''

    with pytest.raises(SystemExit) as stop:
        run_command(mistake)
    assert stop.value.code.startswith('error: vocabulary: expected at least')
    with pytest.raises(TypeError):
        run_command(bug)
    monkeypatch.setenv('MMDET_CLIM_TRACEBACK', '1')
    with pytest.raises(ValueError):
        run_command(mistake)
    run_command(lambda: None)


def test_what_a_key_error_says():
    assert one_line(KeyError('no key\n  here')) == 'no key here'
    assert one_line(KeyError(3)) == '3'
    assert is_mistake(error_of(pickle.loads, b'nothing')) is True
