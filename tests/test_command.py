# Licensed under the Apache License, Version 2.0.
"""A mistake is one line, a bug keeps its traceback."""
import argparse
import configparser
import pickle
import re

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import HOOKS, MODELS, OPTIMIZERS
from mmengine.runner import Runner
from torch.utils.data import DataLoader, Dataset

from mmdet_clim.datasets.vocabulary import build_vocabulary
from mmdet_clim_cli.mistakes import (
    EXTRAS,
    is_mistake,
    one_line,
    run_command,
)
from mmdet_clim_cli.options import KeyValues, device_name, key_value


def error_of(function, *args):
    try:
        function(*args)
    except Exception as error:
        return error
    raise AssertionError('no error')


def read_config(tmp_path, text):
    (tmp_path / 'config.py').write_text(text)
    return Config.fromfile(tmp_path / 'config.py')


WEIGHT = torch.zeros(1, requires_grad=True)


@pytest.mark.parametrize(
    'function, args, line',
    [
        (build_vocabulary, (['a', 'a'], ), "given twice: ['a']"),
        (build_vocabulary, ('none.txt', ), 'none.txt does not exist'),
        (Config.fromfile, ('none.py', ), 'none.py'),
        (MODELS.build, (dict(type='mmdet.NoSuchModel'), ),
         'mmdet.NoSuchModel is not in the'),
        (MODELS.build, (dict(type='mmdet.ResNet', depht=18), ), "'depht'"),
        (open, ('/none/of/it', ), '/none/of/it'),
        # Values that a class can not take, however it finds that out.
        (MODELS.build, (dict(type='mmdet.ResNet', depth=19), ),
         'ResNet: KeyError: invalid depth 19 for resnet'),
        (MODELS.build, (dict(type='mmdet.ResNet', depth=18, num_stages=9), ),
         'ResNet: AssertionError: assert num_stages'),
        (OPTIMIZERS.build, (dict(type='SGD', params=[WEIGHT], lr='fast'), ),
         "SGD: TypeError: '<' not supported"),
        (OPTIMIZERS.build, (dict(type='SGD', params=[WEIGHT], lr=-1), ),
         'SGD: ValueError: Invalid learning rate: -1'),
        (HOOKS.build,
         (dict(type='CheckpointHook', save_best=3), ), 'save_best'),
        (Runner.build_dataloader,
         (dict(dataset=[1], sampler=None, batch_size='four'), ),
         'DataLoader: ValueError: batch_size should be'),
        (getattr,
         (Config(), 'model'), "expected the key 'model' in the config"),
        (getattr, (Config(dict(a={})).a, 'b'), "expected the key 'b' in the"),
        (Config()._cfg_dict.__getitem__,
         ('model', ), "expected the key 'model' in the config"),
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


def test_ctrl_c(capsys):

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stop:
        run_command(interrupted)
    # As a shell has it; nothing but one line is printed.
    assert stop.value.code == 130
    assert capsys.readouterr() == ('', 'interrupted\n')


def test_packages_that_are_not_installed():

    def needs(name):
        raise ModuleNotFoundError(f'No module named {name!r}', name=name)

    def imports(name):
        __import__(name)

    for function in needs, imports:
        error = error_of(function, 'no_such_package.part')
        assert is_mistake(error)
        assert "'no_such_package" in one_line(error)
        assert not is_mistake(error_of(function, 'mmdet_clim.no_such_file'))
    assert one_line(error_of(needs, 'resvg_py')) == (
        "No module named 'resvg_py': pip install 'mmdet_clim[openmoji]'")


def test_the_extras_are_those_of_the_package(repository):
    setup = configparser.ConfigParser()
    setup.read(repository / 'setup.cfg')
    extras = setup['options.extras_require']
    for package, extra in EXTRAS.items():
        assert package.replace('_', '-') in extras[extra], package


def test_what_a_key_error_says():
    assert one_line(KeyError('no key\n  here')) == 'no key here'
    assert one_line(KeyError(3)) == '3'
    assert is_mistake(error_of(pickle.loads, b'nothing')) is True


@pytest.mark.parametrize('words, message', [
    (['--cfg-options', 'a'], "expected key=value, got 'a'"),
    (['--cfg-options', 'a=1', '=1'], "expected key=value, got '=1'"),
    (['--cfg-options', 'a=[1,(2]'], "'a=[1,(2]': Imbalanced brackets"),
    (['--device', 'gpu'], "cpu or cuda:0, got 'gpu'"),
    (['--device', 'cuda:99'], "cpu or cuda:0, got 'cuda:99'"),
])
def test_options(capsys, words, message):
    parser = argparse.ArgumentParser()
    parser.add_argument(
        '--cfg-options', nargs='+', type=key_value, action=KeyValues)
    parser.add_argument('--device', type=device_name)
    args = parser.parse_args(
        ['--cfg-options', 'a.b=1', 'c="[1,(2,x=3)]"', '--device', 'cpu'])
    assert args.cfg_options == {'a.b': 1, 'c': [1, (2, 'x=3')]}
    assert args.device == 'cpu'
    with pytest.raises(SystemExit):
        parser.parse_args(words)
    assert message in capsys.readouterr().err.splitlines()[-1]
