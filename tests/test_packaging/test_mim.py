# Licensed under the Apache License, Version 2.0.
"""mim with the installed wheel, from folders that know nothing of it."""
import json
import re
import subprocess
import sys

import pytest
import torch

CONFIG = 'faster-rcnn_r18-c4_256_captions-tags_clim.py'
BOXES = 'faster-rcnn_r18-c4_256_boxes.py'
FRAGMENT = 'mmdet_clim::_base_/clim/openmoji_captions_tags.py'
# Two iterations in one process.
SHORT = [
    'default_hooks.logger.interval=1',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
    'test_dataloader.num_workers=0',
    'test_dataloader.persistent_workers=False',
]
TWO_ITERATIONS = [
    'max_iters=2', 'train_cfg.max_iters=2', 'train_cfg.val_interval=2',
    'default_hooks.checkpoint.interval=2', 'load_from=None'
]
SMALL_BATCHES = [
    'train_dataloader.batch_size=3',
    'train_dataloader.sampler.source_ratio=[1,1,1]'
]

# The Faster R-CNN of docs/own_config.md on four images: two iterations.
SMALL_FASTER_RCNN = """
_base_ = './own_config.py'
model = dict(
    detector=dict(
        backbone=dict(depth=18, base_channels=16, init_cfg=None),
        neck=dict(in_channels=[16, 32, 64, 128]),
        roi_head=dict(bbox_head=dict(fc_out_channels=64)),
        train_cfg=dict(
            rpn_proposal=dict(max_per_img=64),
            rcnn=dict(sampler=dict(num=32))),
        test_cfg=dict(rpn=dict(max_per_img=32))))
boxes = _base_.train_dataloader.dataset.datasets[0]
boxes.indices = 4
for pipeline in (boxes.pipeline, _base_.val_dataloader.dataset.pipeline):
    for transform in pipeline:
        if 'scale' in transform:
            transform.scale = (128, 128)
val_dataloader = _base_.val_dataloader
test_dataloader = val_dataloader
train_dataloader = dict(
    dataset=dict(datasets=[boxes, _base_.clim_mosaic_dataset]))
train_cfg = dict(max_epochs=1, val_interval=1)
"""


@pytest.fixture(scope='module')
def environment(installed_package, openmoji_root):
    """The installed wheel, and data for the demo's configs."""
    return dict(installed_package, OPENMOJI_ROOT=f'{openmoji_root}/')


@pytest.fixture(scope='module')
def mim(environment, tmp_path_factory):
    """Run mim in a folder of somebody else's project."""
    project = tmp_path_factory.mktemp('project')

    def run(*args):
        done = subprocess.run([sys.executable, '-m', 'mim', *map(str, args)],
                              cwd=project,
                              env=environment,
                              stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT,
                              text=True)
        assert done.returncode == 0, done.stdout[-4000:]
        return done.stdout

    (project /
     'its_config.py').write_text(f"_base_ = 'mmdet_clim::openmoji/{BOXES}'\n")
    run.folder = project
    return run


@pytest.fixture(scope='module')
def trained(mim):
    """A foreign config that inherits one of the package, with CLIM."""
    log = mim('train', 'mmdet_clim', 'its_config.py', '--gpus', 0, '--clim',
              FRAGMENT, '--work-dir', 'runs', '--cfg-options', *SHORT,
              *TWO_ITERATIONS, *SMALL_BATCHES)
    return mim.folder / 'runs' / 'iter_2.pth', log


def test_list_and_search_know_the_package(mim):
    assert re.search(r'^mmdet[-_]clim +1\.0\.0', mim('list'), re.MULTILINE)
    found = mim('search', 'mmdet_clim', '--valid-config')
    assert CONFIG[:-3] in found
    found = mim('search', 'mmdet_clim', '--config',
                'detic_r50-caffe-c4_45k_ov-coco_captions-tags_clim', '--field',
                'ov-coco/published_novel_ap50')
    assert '35.4' in found


def test_run_finds_words_in_images(mim, repository, openmoji_root,
                                   installed_package):
    image = next((openmoji_root / 'val2017').glob('*.jpg'))
    weights = 'configs/openmoji/faster-rcnn_r18-c4_256_base.pth'
    log = mim('run', 'mmdet_clim', 'infer', image, '--config', 'its_config.py',
              '--checkpoint', repository / weights, '--vocabulary', 'cat',
              'fire truck', '--out-dir', 'found', '--device', 'cpu')
    assert installed_package['PYTHONPATH'] in log
    found = json.loads(
        (mim.folder / f'found/preds/{image.stem}.json').read_text())
    assert set(found['names']) <= {'cat', 'fire truck'} and found['names']
    assert (mim.folder / 'found/vis' / image.name).is_file()


def test_foreign_config_trains_with_clim(trained):
    checkpoint, log = trained
    assert checkpoint.exists()
    for name in ('loss_bbox', 'captions.caption.loss', 'mosaic.caption.loss',
                 'mosaic.tag.loss', 'ov_coco/novel_ap50'):
        assert name in log
    # MMEngine's warning of a kind of type without a registry of the scope.
    assert 'As a workaround' not in log
    weights = torch.load(checkpoint, weights_only=True)['state_dict']
    assert any(name.startswith('detector.roi_head.') for name in weights)


def test_test_takes_a_config_of_the_package(mim, trained):
    log = mim('test', 'mmdet_clim', CONFIG, '--checkpoint', trained[0],
              '--work-dir', 'tests', '--cfg-options', *SHORT)
    assert 'ov_coco/base_ap50' in log


def test_gridsearch_trains_a_value(mim):
    """One: each is a program of its own, and their list is mim's matter."""
    log = mim('gridsearch', 'mmdet_clim', BOXES, '--gpus', 0, '--work-dir',
              'search', '--search-args', '--optim_wrapper.optimizer.lr 0.002',
              '--cfg-options', *SHORT, *TWO_ITERATIONS,
              'train_dataloader.batch_size=2')
    assert 'finished successfully' in log
    name = 'search_search_optim_wrapper.optimizer.lr_0.002'
    assert (mim.folder / name / 'iter_2.pth').exists()


def test_a_page_turns_a_config_of_mmdet_into_clim(run_tool, repository,
                                                  openmoji_root, tmp_path):
    """In this tree: mim's programs are the same."""
    page = (repository / 'docs' / 'own_config.md').read_text()
    blocks = re.findall(r'```python\n(_base_.*?)```', page, re.DOTALL)
    (tmp_path / 'own_config.py').write_text(blocks[0])
    (tmp_path / 'small.py').write_text(SMALL_FASTER_RCNN)
    code, log = run_tool(
        'train.py',
        tmp_path / 'small.py',
        '--work-dir',
        tmp_path / 'own',
        '--cfg-options',
        *SHORT,
        env=dict(OPENMOJI_ROOT=f'{openmoji_root}/'))
    assert code == 0, log[-4000:]
    assert 'mosaic.tag.loss' in log
    assert 'loss_bbox' in log
    assert 'ov_coco/novel_ap50' in log
    assert (tmp_path / 'own' / 'epoch_1.pth').exists()
