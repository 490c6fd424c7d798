# Licensed under the Apache License, Version 2.0.
"""What the command lines of the tools do to a config."""
import importlib.util
import re
import sys

import pytest
import torch

from mmdet_clim.engine.runner import latest_checkpoint


def load_tool(repository, name):
    spec = importlib.util.spec_from_file_location(
        f'{name}_tool', repository / 'tools' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'toy.py'
    path.write_text("model = dict(type='Toy')\n"
                    "load_from = 'base.pth'\n"
                    "optim_wrapper = dict(type='OptimWrapper')\n"
                    'auto_scale_lr = dict(enable=False, base_batch_size=8)\n')
    return path


@pytest.fixture
def read_config(repository, monkeypatch, tmp_path):

    def read(name, *args):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv('LOCAL_RANK', '0')
        monkeypatch.setattr(sys, 'argv', [name, *map(str, args)])
        tool = load_tool(repository, name)
        return tool.load_config(tool.parse_args())

    return read


def test_work_dir_follows_the_name_of_the_config(read_config, config):
    assert read_config('train', config).work_dir == 'work_dirs/toy'
    assert read_config('train', config, '--work-dir', 'x').work_dir == 'x'


def test_work_dir_with_clim_is_another(read_config, config, tmp_path):
    """There --resume finds no checkpoint of the plain detector."""
    with open(config, 'a') as file:
        file.write('train_dataloader = dict(batch_size=2, dataset={})\n')
    fragment = tmp_path / 'mosaics.py'
    fragment.write_text(
        "clim_text_encoder = dict(type='Encoder')\n"
        "clim_objectives = dict(caption=dict(type='Captions'))\n"
        'clim_dataset = dict(pipeline=['
        "dict(type='mmdet_clim.PackRegionTextInputs')])\n")
    plain = tmp_path / 'work_dirs/toy'
    plain.mkdir(parents=True)
    (plain / 'last_checkpoint').write_text(str(plain / 'iter_5.pth'))
    cfg = read_config('train', config, '--clim', fragment, '--resume',
                      '--cfg-options', 'clim_source_ratio=[2,1]',
                      'model.detector.depth=18')
    assert cfg.work_dir == 'work_dirs/toy_mosaics'
    assert cfg.load_from == str(tmp_path / 'base.pth')
    assert cfg.model.detector == dict(type='Toy', depth=18)
    assert cfg.train_dataloader.sampler.source_ratio == [2, 1]


def test_options_amp_and_scaled_rate(read_config, config):
    cfg = read_config('train', config, '--amp', '--auto-scale-lr',
                      '--launcher', 'pytorch', '--cfg-options',
                      'model.depth=18', 'optim_wrapper.dtype=bfloat16')
    assert cfg.model == dict(type='Toy', depth=18)
    assert cfg.optim_wrapper.dtype == 'bfloat16'
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.loss_scale == 'dynamic'
    assert cfg.auto_scale_lr.enable
    assert cfg.launcher == 'pytorch'


def test_a_rate_that_can_not_be_scaled(read_config, config):
    for rate in ('', 'auto_scale_lr = None', 'auto_scale_lr = dict()'):
        config.write_text(f"model = dict(type='Toy')\n{rate}\n")
        with pytest.raises(KeyError, match='auto_scale_lr.base_batch_size'):
            read_config('train', config, '--auto-scale-lr')


def test_resume_leaves_the_config_as_it_is(read_config, config, tmp_path):
    """The config that is written to the work dir keeps its load_from."""
    (tmp_path / 'runs').mkdir()
    (tmp_path / 'runs' / 'last_checkpoint').write_text('runs/iter_5.pth')
    for more in ((), ('--resume', ), ('--resume', 'other.pth')):
        cfg = read_config('train', config, '--work-dir', 'runs', *more)
        assert cfg.load_from == str(tmp_path / 'base.pth')
        assert not cfg.get('resume', False)


def test_the_last_checkpoint(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    last, file = tmp_path / 'last_checkpoint', tmp_path / 'iter_5.pth'
    last.write_text('/elsewhere/iter_5.pth')
    with pytest.raises(FileNotFoundError, match='--resume FILE'):
        latest_checkpoint(tmp_path)
    # The folder was moved.
    file.touch()
    assert latest_checkpoint(tmp_path) == str(file)
    last.write_text(str(file))
    assert latest_checkpoint(tmp_path) == str(file)


def test_resume_of_weights_alone(repository, tmp_path):
    check = load_tool(repository, 'train').check_resume
    file = tmp_path / 'weights.pth'
    torch.save(dict(state_dict={}), file)
    with pytest.raises(ValueError, match='load_from=.*weights.pth begins'):
        check(str(file))
    with pytest.raises(FileNotFoundError, match='none.pth does not exist'):
        check(str(tmp_path / 'none.pth'))
    torch.save(
        dict(state_dict={}, message_hub={}, meta=dict(epoch=0, iter=5)), file)
    check(str(file))


@pytest.mark.parametrize('args', [('a.pth', ), ('--checkpoint', 'a.pth')])
def test_test_takes_the_checkpoint_both_ways(repository, read_config, config,
                                             monkeypatch, tmp_path, args):
    """The config that is written keeps its own load_from."""
    cfg = read_config('test', config, *args)
    assert cfg.load_from == str(tmp_path / 'base.pth')
    assert not cfg.resume
    tool = load_tool(repository, 'test')
    assert tool.parse_args().checkpoint == 'a.pth'


@pytest.mark.parametrize('args, message', [
    ((), 'give one checkpoint'),
    (('a.pth', '--checkpoint', 'b.pth'), 'give one checkpoint'),
    (('a.pth', '--out', 'a.json'), r'expected a \.pkl'),
])
def test_test_refuses(read_config, config, capsys, args, message):
    with pytest.raises(SystemExit):
        read_config('test', config, *args)
    assert re.search(message, capsys.readouterr().err)


def test_show_dir_draws(read_config, config):
    with open(config, 'a') as file:
        file.write("default_hooks = dict(visualization=dict(type='Draw'))\n")
    cfg = read_config('test', config, 'a.pth', '--show-dir', 'pictures')
    assert cfg.default_hooks.visualization == dict(
        type='Draw', draw=True, test_out_dir='pictures')
