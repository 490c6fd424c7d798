# Licensed under the Apache License, Version 2.0.
"""The whole thing on OpenMoji-COCO: train, kill, resume, strip, test."""
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

import mmdet_clim  # noqa: F401

CONFIG = 'configs/openmoji/faster-rcnn_r18-c4_256_captions-tags_clim.py'
PLAIN = 'configs/openmoji/faster-rcnn_r18-c4_256_boxes.py'
SOURCES = 'train_dataloader.dataset.datasets'
SMALL = [
    'load_from=None',
    'train_cfg.max_iters=8',
    'train_cfg.val_interval=8',
    'train_dataloader.batch_size=3',
    'train_dataloader.sampler.source_ratio=[1,1,1]',
    # Each worker has a cache of mosaics of its own.
    'train_dataloader.num_workers=2',
    'randomness.seed=5',
    'default_hooks.checkpoint.interval=2',
    'default_hooks.logger.interval=1',
    'val_dataloader.batch_size=2',
    'val_dataloader.dataset.pipeline.1.scale=(96,96)',
    f'{SOURCES}.1.pipeline.0.scale=(96,96)',
    f'{SOURCES}.1.pipeline.1.scale=(96,96)',
    f'{SOURCES}.2.pipeline.2.tile_size=(48,48)',
    f'{SOURCES}.2.pipeline.2.out_size=(96,96)',
    'model.detector.train_cfg.rpn_proposal.max_per_img=32',
    'model.detector.train_cfg.rcnn.sampler.num=8',
    'model.detector.test_cfg.rpn.max_per_img=8',
    'log_processor.window_size=1'
]


@pytest.fixture(scope='module')
def env(openmoji_root):
    """Where the configs find their data."""
    return dict(OPENMOJI_ROOT=f'{openmoji_root}/')


def arguments(repository, work_dir, *extra):
    return [
        repository / CONFIG, '--work-dir', work_dir, *extra, '--cfg-options',
        *SMALL
    ]


def losses(work_dir: Path):
    """Loss of every iteration, the last one logged where there are several."""
    found = {}
    for file in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in file.read_text().splitlines():
            record = json.loads(line)
            if 'loss' in record:
                found[record['step']] = {
                    k: v
                    for k, v in record.items() if 'loss' in k
                }
    return found


@pytest.fixture(scope='module')
def whole_run(repository, env, run_tool, tmp_path_factory):
    """A run of 8 iterations that nothing disturbs."""
    work_dir = tmp_path_factory.mktemp('whole')
    code, log = run_tool('train.py', *arguments(repository, work_dir), env=env)
    assert code == 0, log
    (work_dir / 'output.txt').write_text(log)
    return work_dir


def test_a_good_run_warns_of_nothing(whole_run, warnings_in):
    output = (whole_run / 'output.txt').read_text()
    assert 'Saving checkpoint at 8 iterations' in output
    assert warnings_in(output) == []


def test_stripped_detector_predicts_the_same(repository, env, run_tool,
                                             whole_run, tmp_path, warnings_in):
    checkpoint = whole_run / 'iter_8.pth'
    plain = tmp_path / 'plain.pth'
    code, log = run_tool('checkpoints/strip_wrapper.py', checkpoint, plain)
    assert code == 0, log
    results = []
    outputs = ''
    for config, weights, key in ((CONFIG, checkpoint, 'model.detector'),
                                 (PLAIN, plain, 'model')):
        prefix = tmp_path / Path(config).stem
        code, log = run_tool(
            'test.py',
            repository / config,
            weights,
            '--work-dir',
            tmp_path / 'work',
            '--json',
            '--cfg-options',
            f'test_evaluator.outfile_prefix={prefix}',
            'test_dataloader.batch_size=2',
            'test_dataloader.dataset.pipeline.1.scale=(96,96)',
            # No score is high after eight iterations.
            f'{key}.test_cfg.rcnn.score_thr=0.',
            f'{key}.test_cfg.rpn.max_per_img=20',
            env=env)
        assert code == 0, log
        assert 'ov_coco/novel_ap50' in json.loads(log.splitlines()[-1])
        outputs += log
        results.append(json.loads(Path(f'{prefix}.bbox.json').read_text()))
    assert len(results[0]) > 0
    assert results[0] == results[1]
    assert warnings_in(outputs) == []


@pytest.mark.gpu
@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_mixed_precision_on_a_gpu(repository, env, run_tool, tmp_path, dtype):
    """Trained and evaluated there, and evaluated once more by itself."""
    code, log = run_tool(
        'train.py',
        *arguments(repository, tmp_path, '--amp'),
        f'optim_wrapper.dtype={dtype}',
        env=env)
    assert code == 0, log
    assert all(0 < step['loss'] < 100 for step in losses(tmp_path).values())
    code, log = run_tool(
        'test.py',
        repository / CONFIG,
        tmp_path / 'iter_8.pth',
        '--work-dir',
        tmp_path / 'work',
        '--json',
        env=env)
    assert code == 0, log
    assert 'ov_coco/novel_ap50' in json.loads(log.splitlines()[-1])


def test_two_processes_of_torchrun(repository, env, tmp_path, monkeypatch):
    """``tools/dist_train.sh`` on two processes, without a GPU."""
    monkeypatch.setenv('OPENMOJI_ROOT', env['OPENMOJI_ROOT'])
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    monkeypatch.setenv(
        'PATH',
        os.pathsep.join([str(Path(sys.executable).parent),
                         os.environ['PATH']]))
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        monkeypatch.setenv('PORT', str(free.getsockname()[1]))
    transforms = Config.fromfile(repository / CONFIG).clim_mosaic_pipeline
    index = [t.type for t in transforms].index('mmdet_clim.MosaicCLIM')
    config, *options = arguments(repository, tmp_path)
    done = subprocess.run([
        repository / 'tools/dist_train.sh', config, '2', *options,
        'train_cfg.max_iters=2', 'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False',
        'train_dataloader.dataset.datasets.2.pipeline.'
        f'{index}.grids=[(2,2)]'
    ],
                          stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT,
                          text=True)
    assert done.returncode == 0, done.stdout[-4000:]
    assert any('Distributed training: True' in log.read_text()
               for log in tmp_path.glob('*/*.log'))
    found = losses(tmp_path)
    assert sorted(found) == [1, 2]
    assert all(0 < step['loss'] < 100 for step in found.values())
    # In two steps, on two ranks: a whole image and a mosaic of four tiles.
    state = torch.load(tmp_path / 'iter_2.pth')['state_dict']
    # of one rank, its own: a whole image and four tiles a step
    assert state['objectives.caption.queue.filled'] == 2 * (1 + 4)


class RunsCommand:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}', )


@pytest.mark.parametrize('tool, option', [('train.py', '--resume'),
                                          ('test.py', '--checkpoint')])
def test_a_malicious_checkpoint_is_refused(repository, env, run_tool, tmp_path,
                                           tool, option):
    bad = tmp_path / 'bad.pth'
    torch.save(dict(state_dict={}, meta=RunsCommand(tmp_path / 'trace')), bad)
    code, log = run_tool(
        tool,
        repository / PLAIN,
        option,
        bad,
        '--work-dir',
        tmp_path / 'work',
        env=env)
    assert code == 1
    assert 'UnpicklingError' in log
    assert not (tmp_path / 'trace').exists()


def test_queue_is_in_the_checkpoint(whole_run):
    state = torch.load(whole_run / 'iter_8.pth')['state_dict']
    assert state['objectives.caption.queue.filled'] > 0
    assert not any('text_encoder' in key for key in state)
