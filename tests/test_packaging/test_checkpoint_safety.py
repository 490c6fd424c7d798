# Licensed under the Apache License, Version 2.0.
"""MMEngine's checkpoints load; a checkpoint can not run code."""
import os
import pickle

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import Runner
from torch import nn

from mmdet_clim.stack import history_statistic


class RunsCommand:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}', )


class ReachesAround:
    """Goes from an allowed class to its globals when it is unpickled."""

    def __reduce__(self):
        return getattr, (HistoryBuffer, '__init__')


def build_runner(folder, load_from=None):
    return Runner(
        model=nn.Linear(2, 1),
        work_dir=str(folder),
        load_from=None if load_from is None else str(load_from),
        experiment_name=f'safety-{folder.name}')


def test_history_and_numpy_values_survive(tmp_path):
    hub = MessageHub('survive')
    hub.update_scalar('train/loss', 0.5)
    hub.update_scalar('train/loss', 1.5)
    hub.update_scalar('train/count', np.int64(3))
    hub.update_scalar('train/lr', torch.tensor(0.25))
    hub.update_info('best', np.float32(0.75))
    hub.update_info('mask', np.array([True, False]))
    torch.save(dict(message_hub=hub.state_dict()), tmp_path / 'a.pth')
    loaded = torch.load(tmp_path / 'a.pth')['message_hub']
    loss = loaded['log_scalars']['train/loss']
    assert loss.mean() == 1.0
    assert loss.statistics('max') == 1.5
    assert loaded['log_scalars']['train/count'].current() == 3
    assert loaded['log_scalars']['train/lr'].current() == 0.25
    assert loaded['runtime_info']['best'] == np.float32(0.75)
    assert loaded['runtime_info']['mask'].tolist() == [True, False]


def test_names_of_older_numpy(tmp_path):
    state = pickle.dumps(np.arange(3.), protocol=2)
    old = state.replace(b'numpy._core.', b'numpy.core.')
    torch.save(dict(), tmp_path / 'a.pth')
    archive = (tmp_path / 'a.pth')
    import zipfile
    with zipfile.ZipFile(archive) as before:
        files = {i.filename: before.read(i) for i in before.infolist()}
    name = next(n for n in files if n.endswith('data.pkl'))
    files[name] = old
    with zipfile.ZipFile(archive, 'w') as after:
        for filename, content in files.items():
            after.writestr(filename, content)
    assert torch.load(archive).tolist() == [0., 1., 2.]


def test_a_command_is_refused(tmp_path):
    trace = tmp_path / 'trace'
    path = tmp_path / 'bad.pth'
    torch.save(
        dict(state_dict=nn.Linear(2, 1).state_dict(), meta=RunsCommand(trace)),
        path)
    with pytest.raises(pickle.UnpicklingError):
        build_runner(tmp_path, path).load_checkpoint(str(path))
    with pytest.raises(pickle.UnpicklingError):
        build_runner(tmp_path, path).resume(str(path))
    assert not trace.exists()


def test_mmengine_loads_and_the_types_stay_allowed(tmp_path):
    path = tmp_path / 'good.pth'
    hub = MessageHub('stay')
    hub.update_scalar('train/loss', 0.5)
    torch.save(
        dict(
            state_dict=nn.Linear(2, 1).state_dict(),
            message_hub=hub.state_dict()), path)
    for _ in range(2):
        build_runner(tmp_path, path).load_checkpoint(str(path))
        loaded = torch.load(path)['message_hub']['log_scalars']
        assert loaded['train/loss'].current() == 0.5


def test_getattr_reaches_four_statistics_only(tmp_path):
    path = tmp_path / 'bad.pth'
    torch.save(dict(meta=ReachesAround()), path)
    with pytest.raises(pickle.UnpicklingError, match="'__init__'"):
        torch.load(path)
    assert history_statistic(HistoryBuffer, 'mean') is HistoryBuffer.mean
    with pytest.raises(pickle.UnpicklingError, match='HistoryBuffer'):
        history_statistic(os, 'mean')
