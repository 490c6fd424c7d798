# Licensed under the Apache License, Version 2.0.
"""Files of weights are data, or they are refused."""
import os
import pickle
import subprocess

import numpy as np
import pytest
import torch

from mmdet_clim.engine.published_checkpoints import read_weights


class RunsCommand:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}', )


@pytest.mark.parametrize('protocol', [2, 4, 5])
def test_arrays_of_detectron2(tmp_path, protocol):
    arrays = dict(
        a=np.arange(6, dtype=np.float32).reshape(2, 3),
        transposed=np.arange(6.).reshape(2, 3).T,
        foreign=np.arange(3, dtype='>f4'),
        one=np.float32(2.5),
        none=np.zeros((0, 3)))
    with open(tmp_path / 'a.pkl', 'wb') as file:
        pickle.dump(
            dict(model=arrays, __author__='someone', iteration=np.int64(7)),
            file, protocol)
    weights = read_weights(tmp_path / 'a.pkl')
    assert list(weights) == list(arrays)
    for name, array in arrays.items():
        assert np.array_equal(weights[name].numpy(), array)


@pytest.mark.parametrize('key', ['model', 'state_dict', None])
def test_what_torch_saved(tmp_path, key):
    weights = dict(a=torch.ones(2))
    torch.save({
        key: weights,
        'iteration': 3
    } if key else weights, tmp_path / 'a.pth')
    assert read_weights(tmp_path / 'a.pth')['a'].tolist() == [1, 1]


@pytest.mark.parametrize('suffix', ['.pkl', '.pth'])
def test_a_malicious_file_is_refused(tmp_path, suffix):
    content = dict(model=dict(a=RunsCommand(tmp_path / 'trace')))
    path = tmp_path / f'a{suffix}'
    if suffix == '.pkl':
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises((pickle.UnpicklingError, ValueError)):
        read_weights(path)
    assert not (tmp_path / 'trace').exists()
    path.write_bytes(b'')
    with pytest.raises(ValueError, match='cut short'):
        read_weights(path)


@pytest.mark.parametrize('name', [
    'eval', 'getattr', 'numpy.load', 'numpy.core.multiarray.fromfile',
    'numpy._core.multiarray.scalar.__class__'
])
def test_nothing_else_is_found(tmp_path, name):
    module, _, attribute = f'builtins.{name}'.rpartition('.')
    if module.startswith('builtins.'):
        module = module[len('builtins.'):]
    path = tmp_path / 'a.pkl'
    path.write_bytes(f'c{module}\n{attribute}\n.'.encode())
    with pytest.raises(pickle.UnpicklingError, match='expected NumPy arrays'):
        read_weights(path)


@pytest.mark.parametrize('content', [
    dict(model=dict(a='text')),
    dict(model={3: np.ones(2)}),
    dict(a=np.array(['text'])),
    dict(a=np.array([None])),
    dict(a=dict(b=np.ones(1))),
    [np.ones(2)],
    dict(),
])
def test_what_holds_no_weights_is_refused(tmp_path, content):
    (tmp_path / 'a.pkl').write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match='expected'):
        read_weights(tmp_path / 'a.pkl')


def test_a_command_in_an_array_is_refused(tmp_path):
    array = np.array([subprocess.Popen], dtype=object)
    (tmp_path / 'a.pkl').write_bytes(pickle.dumps(dict(a=array)))
    with pytest.raises(pickle.UnpicklingError, match='subprocess.Popen'):
        read_weights(tmp_path / 'a.pkl')
