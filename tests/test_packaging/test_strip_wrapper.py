# Licensed under the Apache License, Version 2.0.
"""The detector comes out of its wrapper, and nothing else does."""
import importlib.util
import json
import os
import pickle
import sys
from collections import OrderedDict

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from mmdet_clim.engine.checkpoints import save_atomically


@pytest.fixture(scope='module')
def tool(repository):
    path = repository / 'tools' / 'checkpoints' / 'strip_wrapper.py'
    spec = importlib.util.spec_from_file_location('strip_wrapper', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Plain(nn.Sequential):

    def __init__(self, hidden=3):
        super().__init__(nn.Linear(2, hidden), nn.Linear(hidden, 1))


class Wrapper(nn.Module):
    """Parts as a CLIMDetector has them."""

    def __init__(self):
        super().__init__()
        self.detector = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        self.objectives = nn.ModuleDict(dict(caption=nn.Linear(2, 2)))
        self.objectives.register_buffer('queue', torch.zeros(4, 2))


def strip(tool, monkeypatch, *args):
    monkeypatch.setattr(sys, 'argv', ['strip_wrapper', *map(str, args)])
    tool.main()


def save(path, **changes):
    wrapper = Wrapper()
    checkpoint = dict(
        state_dict=wrapper.state_dict(),
        meta=dict(iter=7, cfg='wrapped', dataset_meta=dict(classes=('cat', ))),
        optimizer=dict(state={}),
        message_hub=dict(),
        param_schedulers=[])
    checkpoint.update(changes)
    torch.save(checkpoint, path)
    return wrapper


def test_the_plain_detector_loads_strictly(tool, tmp_path, monkeypatch,
                                           capsys):
    wrapper = save(tmp_path / 'in.pth')
    out = tmp_path / 'a' / 'out.pth'
    strip(tool, monkeypatch, tmp_path / 'in.pth', out, '--json')
    assert json.loads(capsys.readouterr().out) == dict(
        output=str(out), bytes=out.stat().st_size)
    stripped = torch.load(tmp_path / 'a' / 'out.pth', weights_only=True)
    assert sorted(stripped) == ['meta', 'state_dict']
    assert stripped['meta'] == dict(
        iter=7, cfg='wrapped', dataset_meta=dict(classes=('cat', )))
    plain = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    plain.load_state_dict(stripped['state_dict'], strict=True)
    inputs = torch.randn(5, 2)
    assert torch.equal(plain(inputs), wrapper.detector(inputs))
    # Nothing unfinished is left beside it.
    assert os.listdir(tmp_path / 'a') == ['out.pth']


def test_the_plain_config_replaces_the_wrapped_one(tool, tmp_path,
                                                   monkeypatch):
    monkeypatch.setitem(MODELS.module_dict, 'Plain', Plain)
    save(tmp_path / 'in.pth')
    (tmp_path / 'plain.py').write_text("model = dict(type='Plain')\n")
    strip(tool, monkeypatch, tmp_path / 'in.pth', tmp_path / 'out.pth',
          '--config', tmp_path / 'plain.py')
    meta = torch.load(tmp_path / 'out.pth', weights_only=True)['meta']
    cfg = Config.fromstring(meta['cfg'], '.py')
    assert cfg.model == dict(type='Plain')
    (tmp_path / 'plain.py').write_text("model = dict(type='Plain', hidden=4)")
    with pytest.raises(ValueError, match=r'0.weight \(3, 2\), expected \(4, '):
        strip(tool, monkeypatch, tmp_path / 'in.pth', tmp_path / 'wrong.pth',
              '--config', tmp_path / 'plain.py')
    assert not (tmp_path / 'wrong.pth').exists()


def test_a_plain_checkpoint_is_refused(tool, tmp_path, monkeypatch):
    torch.save(
        dict(state_dict=nn.Linear(1, 1).state_dict()), tmp_path / 'in.pth')
    with pytest.raises(ValueError, match=r"'detector\.'.*\['weight', 'bias'"):
        strip(tool, monkeypatch, tmp_path / 'in.pth', tmp_path / 'out.pth')
    assert not (tmp_path / 'out.pth').exists()


@pytest.mark.parametrize('content', [OrderedDict(weight=1), {'a': [1, 2]}])
def test_what_is_no_checkpoint_is_refused(tool, tmp_path, monkeypatch,
                                          content):
    torch.save(content, tmp_path / 'in.pth')
    with pytest.raises(ValueError, match='expected the key "state_dict"'):
        strip(tool, monkeypatch, tmp_path / 'in.pth', tmp_path / 'out.pth')


class RunsCommand:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}', )


def test_a_malicious_pickle_is_refused(tool, tmp_path, monkeypatch):
    save(tmp_path / 'in.pth', meta=RunsCommand(tmp_path / 'trace'))
    with pytest.raises(ValueError, match='UnpicklingError'):
        strip(tool, monkeypatch, tmp_path / 'in.pth', tmp_path / 'out.pth')
    assert not (tmp_path / 'trace').exists()
    assert not (tmp_path / 'out.pth').exists()


def test_a_failed_write_leaves_the_old_file(tool, tmp_path):
    path = tmp_path / 'out.pth'
    path.write_bytes(b'old')
    with pytest.raises((AttributeError, pickle.PicklingError)):
        save_atomically(dict(bad=lambda: None), path)
    assert path.read_bytes() == b'old'
    assert os.listdir(tmp_path) == ['out.pth']
    with pytest.raises(OSError, match='out.pth'):
        save_atomically(dict(a=1), path / 'a.pth')
