# Licensed under the Apache License, Version 2.0.
"""Weights that fit are loaded, and others refused with what differs."""
import logging
import os

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.model import BaseModel, BaseModule
from mmengine.registry import DATASETS, MODELS
from torch import nn
from torch.utils.data import Dataset

import mmdet_clim  # noqa: F401
from mmdet_clim.engine.checkpoints import load_weights, read_checkpoint
from mmdet_clim.engine.runner import CLIMRunner, begin_with, latest_checkpoint


class Toy(BaseModel):
    """A wrapper with a detector and an objective, or the detector alone."""

    def __init__(self, hidden=3, wrapped=False):
        super().__init__()
        detector = nn.Sequential(
            nn.Linear(2, hidden), nn.BatchNorm1d(hidden), nn.Linear(hidden, 1))
        if wrapped:
            self.detector = detector
            self.objectives = nn.ModuleDict(dict(caption=nn.Linear(2, 2)))
        else:
            self.layers = detector
        self.wrapped = wrapped

    def forward(self, inputs, data_samples=None, mode='tensor'):
        layers = self.detector if self.wrapped else self.layers
        return dict(loss=layers(torch.stack(inputs)).square().mean())


class Points(Dataset):

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return dict(inputs=torch.full((2, ), float(index)), data_samples=index)


def plain(hidden=3):
    return nn.Sequential(
        nn.Linear(2, hidden), nn.BatchNorm1d(hidden), nn.Linear(hidden, 1))


@pytest.fixture
def logged(monkeypatch):
    lines = []
    monkeypatch.setattr('mmdet_clim.engine.checkpoints.print_log',
                        lambda message, *args: lines.append(message))
    return lines


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize('save', [
    lambda m: m.state_dict(),
    lambda m: dict(state_dict=m.state_dict(), meta=dict()),
    lambda m: {
        f'module.{k}': v
        for k, v in m.state_dict().items()
    },
    lambda m: dict(
        state_dict={
            **{
                f'detector.{k}': v
                for k, v in m.state_dict().items()
            }, 'objectives.queue': torch.ones(3)
        }),
])
def test_weights_that_fit(tmp_path, logged, save):
    source, target = plain(), plain()
    torch.save(save(source), tmp_path / 'a.pth')
    load_weights(target, tmp_path / 'a.pth')
    assert same(source, target) and not logged
    target = plain()
    load_weights(target, save(source))
    assert same(source, target)


def test_other_shapes(tmp_path):
    torch.save(plain(5).state_dict(), tmp_path / 'a.pth')
    for needs_all in (True, False):
        with pytest.raises(ValueError) as error:
            load_weights(plain(), tmp_path / 'a.pth', needs_all=needs_all)
        message = str(error.value)
        assert f'{tmp_path}/a.pth: 7 weights have other shapes' in message
        assert '0.weight (5, 2), expected (3, 2)' in message
        assert '2.weight (1, 5), expected (1, 3)' in message
        assert '\n' not in message


def test_missing_weights(logged):
    weights = plain().state_dict()
    del weights['0.bias'], weights['1.num_batches_tracked']
    with pytest.raises(ValueError, match='1 of 9 .* missing: 0.bias. Give'):
        load_weights(plain(), weights)
    load_weights(plain(), dict(state_dict=weights), needs_all=False)
    assert 'checkpoint: 1 weights are missing' in logged[0]
    # convert_published --allow-missing notes them.
    load_weights(plain(),
                 dict(state_dict=weights, meta=dict(left_out=['0.bias'])))
    weights['more.weight'] = torch.ones(2)
    load_weights(plain(), weights, needs_all=False)
    assert '1 weights are not used: more.weight' in logged[-1]


def test_what_training_alone_needs_may_be_missing(logged):
    model = Toy(wrapped=True)
    weights = {
        name: value
        for name, value in Toy(wrapped=True).state_dict().items()
        if 'objectives' not in name
    }
    load_weights(model, weights)
    assert 'objectives.caption.weight' in logged[0]
    del weights['detector.0.weight']
    with pytest.raises(ValueError, match='missing: detector.0.weight'):
        load_weights(model, weights)


def test_weights_that_begin_anew():
    target = plain()
    before = target[2].weight.clone()
    skip = ['2.*']
    source = plain(3)
    source[2] = nn.Linear(3, 80)
    load_weights(target, source.state_dict(), needs_all=True, skip=skip)
    assert torch.equal(target[2].weight, before)
    assert torch.equal(target[0].weight, source[0].weight)
    with pytest.raises(ValueError, match='no weight .* matches .rpn'):
        load_weights(target, source.state_dict(), skip=['rpn.*'])


def test_another_model_altogether():
    with pytest.raises(ValueError, match='none of .*weight.* is a weight of'):
        load_weights(plain(), nn.Linear(2, 2).state_dict())
    with pytest.raises(ValueError, match='none of'):
        load_weights(plain(), nn.Linear(2, 2).state_dict(), needs_all=False)


class RunsCommand:

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}', )


@pytest.mark.parametrize(
    'content, message',
    [
        (b'no weights', 'UnpicklingError'),
        (b'', 'not a checkpoint'),
        (b'PK\x03\x04' + b'\0' * 100, 'not a checkpoint'),
        # Of these torch raises IndexError and KeyError.
        (b'\x80\x02a.', 'not a checkpoint'),
        (b'\x80\x02h\x00.', 'not a checkpoint'),
    ])
def test_files_that_are_no_checkpoint(tmp_path, content, message):
    (tmp_path / 'a.pth').write_bytes(content)
    for mmap in (False, True):
        with pytest.raises(ValueError, match=f'a.pth.*{message}'):
            read_checkpoint(tmp_path / 'a.pth', mmap)


def test_files_that_hold_something_else(tmp_path):
    with pytest.raises(FileNotFoundError, match='none.pth does not exist'):
        read_checkpoint(tmp_path / 'none.pth')
    file, trace = tmp_path / 'a.pth', tmp_path / 'trace'
    torch.save(dict(state_dict={}, meta=RunsCommand(trace)), file)
    with pytest.raises(ValueError, match='could run code'):
        read_checkpoint(file)
    assert not trace.exists()
    torch.save([1], file)
    with pytest.raises(ValueError, match='by name, got list'):
        read_checkpoint(file)
    torch.save(dict(state_dict=[1]), file)
    with pytest.raises(ValueError, match='expected weights by name'):
        load_weights(plain(), file)


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS.module_dict, 'Toy', Toy)
    monkeypatch.setitem(DATASETS.module_dict, 'Points', Points)

    def make(**changes):
        return Config(
            dict(
                dict(
                    default_scope='mmengine',
                    model=dict(type='Toy', wrapped=True),
                    work_dir=str(tmp_path / 'run'),
                    train_dataloader=dict(
                        batch_size=4,
                        num_workers=0,
                        sampler=dict(type='DefaultSampler', shuffle=False),
                        dataset=dict(type='Points')),
                    train_cfg=dict(type='IterBasedTrainLoop', max_iters=2),
                    optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.)),
                    default_hooks=dict(
                        checkpoint=dict(
                            type='CheckpointHook', by_epoch=False,
                            interval=1)),
                    log_processor=dict(by_epoch=False)), **changes))

    return make


def test_a_training_begins_with_weights_and_is_resumed(config, tmp_path):
    base = Toy(wrapped=True)
    weights = {
        k: v
        for k, v in base.state_dict().items() if 'objectives' not in k
    }
    torch.save(weights, tmp_path / 'base.pth')
    cfg = config(load_from=str(tmp_path / 'base.pth'), resume=True)
    # Nothing to resume yet: it begins with load_from.
    runner = CLIMRunner.from_cfg(cfg)
    runner.train()
    assert torch.equal(runner.model.detector[0].weight,
                       base.detector[0].weight)
    assert runner.iter == 2
    last = latest_checkpoint(cfg.work_dir)
    assert last.endswith('iter_2.pth')

    cfg.train_cfg.max_iters = 3
    again = CLIMRunner.from_cfg(cfg)
    again.train()
    assert again.iter == 3 and again._load_from == last
    # As --resume does it, first with nothing there and then with something.
    cfg = config(
        work_dir=str(tmp_path / 'auto'), load_from=str(tmp_path / 'base.pth'))
    for steps in (2, 4):
        cfg.train_cfg.max_iters = steps
        runner = CLIMRunner.from_cfg(cfg)
        begin_with(runner, resume=True)
        runner.train()
        assert runner.iter == steps and runner._resume == (steps == 4)
        assert torch.equal(runner.model.detector[0].weight,
                           base.detector[0].weight)
    # One file is resumed; the config that is written keeps its own.
    cfg = config(
        work_dir=str(tmp_path / 'other'), load_from=str(tmp_path / 'base.pth'))
    third = CLIMRunner.from_cfg(cfg)
    begin_with(third, str(tmp_path / 'run' / 'iter_1.pth'), resume=True)
    third.train()
    written = Config.fromfile(next((tmp_path / 'other').glob('*.py')))
    assert written.load_from == str(tmp_path / 'base.pth')
    assert not written.get('resume', False)


def test_a_runner_refuses_other_shapes(config, tmp_path):
    torch.save(Toy(5, wrapped=True).state_dict(), tmp_path / 'other.pth')
    for hooks in ([], [dict(type=EMAHook)]):
        runner = CLIMRunner.from_cfg(
            config(load_from=str(tmp_path / 'other.pth'), custom_hooks=hooks))
        with pytest.raises(ValueError, match='7 weights have other shapes'):
            runner.train()
    runner = CLIMRunner.from_cfg(
        config(
            load_from=str(tmp_path / 'other.pth'), load_from_skip=['[012].*']))
    runner.train()


def test_a_config_in_a_checkpoint_is_not_run(config, tmp_path):
    cfg = config()
    CLIMRunner.from_cfg(cfg).train()
    file = latest_checkpoint(cfg.work_dir)
    checkpoint = torch.load(file, weights_only=True)
    trace = tmp_path / 'trace'
    checkpoint['meta']['config'] = f"import os\nos.system('touch {trace}')\n"
    torch.save(checkpoint, file)
    runner = CLIMRunner.from_cfg(cfg)
    begin_with(runner, file, resume=True)
    runner.train()
    assert not trace.exists()


def test_the_config_is_in_the_log_file_alone(config, tmp_path, capsys):
    cfg = config(load_from=str(tmp_path / 'none.pth'))
    with pytest.raises(FileNotFoundError):
        CLIMRunner.from_cfg(cfg).train()
    printed = ''.join(capsys.readouterr())
    assert 'System environment' not in printed
    log = next((tmp_path / 'run').glob('*/*.log')).read_text()
    assert 'System environment' in log
    cfg.load_from = None
    runner = CLIMRunner.from_cfg(cfg)
    runner.logger.warning('look here')
    assert 'look here' in ''.join(capsys.readouterr())
    runner.train()
    printed = ''.join(capsys.readouterr())
    assert 'System environment' not in printed
    log = tmp_path / 'run' / runner.timestamp / f'{runner.timestamp}.log'
    assert f'environment, config and hooks: {log}\n' in printed
    assert 'lr: ' in printed
    log = log.read_text()
    for dumped in ('System environment', 'Config:', 'Hooks will be'):
        assert dumped in log
    assert 'lr: ' in log
    assert not any(
        handler.filters and not isinstance(handler, logging.FileHandler)
        and any(type(f).__name__ == '_Held' for f in handler.filters)
        for handler in runner.logger.handlers)


@pytest.mark.parametrize('prefix', [None, 'backbone.'])
def test_pretrained_weights_of_a_part(tmp_path, prefix):
    file = str(tmp_path / 'a.pth')

    class Part(BaseModule):

        def __init__(self, hidden=3):
            super().__init__(
                init_cfg=dict(
                    type='Pretrained', checkpoint=file, prefix=prefix))
            self.layers = plain(hidden)

    source = Part()
    torch.save(
        dict(
            state_dict={
                (prefix or '') + name: value
                for name, value in source.state_dict().items()
            }), file)
    target = Part()
    target.init_weights()
    assert same(source, target)
    with pytest.raises(ValueError, match='7 weights have other shapes'):
        Part(4).init_weights()
    torch.save({(prefix or '') + 'other': torch.ones(2)}, file)
    with pytest.raises(ValueError, match='none of'):
        Part().init_weights()
