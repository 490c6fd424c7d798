# Licensed under the Apache License, Version 2.0.
"""tools/finetune.py: from captioned images to a plain detector."""
import csv
import json

import pytest
import torch
from mmdet.apis import inference_detector, init_detector
from mmengine.config import Config

from mmdet_clim.apis import CLIMInferencer
from mmdet_clim.engine.finetuning import (
    OwnData,
    finetune_config,
    resize_scale,
)

CONFIGS = 'configs/openmoji'
NAMES = ['cat', 'person', 'fire truck', 'dog', 'car']


@pytest.fixture
def detector(repository):
    """Config, wrapped or not, and weights of the shipped detector."""
    folder = repository / CONFIGS
    return (folder / 'faster-rcnn_r18-c4_256_boxes.py',
            folder / 'faster-rcnn_r18-c4_256_base.pth')


@pytest.fixture
def own(openmoji_root, tmp_path):
    """Names, and captions as a table, of the captioned scenes."""
    names = tmp_path / 'names.txt'
    names.write_text('\n'.join(NAMES))
    annotations = openmoji_root / 'annotations'
    scenes = json.loads(
        (annotations / 'captions_captioned2017_tags.json').read_text())
    table = tmp_path / 'captions.csv'
    with open(table, 'w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['file_name', 'caption'])
        for image in scenes['images']:
            writer.writerows([image['file_name'], c]
                             for c in image['captions'])
    return names, table


def run(run_tool, detector, names, work_dir, *options):
    return run_tool('finetune.py', '--detector', detector[0], '--checkpoint',
                    detector[1], '--vocabulary', names, '--work-dir', work_dir,
                    '--iterations', 2, '--workers', 1, *options)


def test_captions_and_boxes(run_tool, detector, own, openmoji_root, tmp_path):
    names, table = own
    annotations = openmoji_root / 'annotations'
    # Boxes of any classes: those of others are left out.
    code, log = run(run_tool, detector, names, tmp_path / 'out', '--images',
                    openmoji_root / 'captioned2017', '--captions', table,
                    '--boxes', annotations / 'instances_train2017_base.json',
                    '--box-images', openmoji_root / 'train2017', '--val-boxes',
                    annotations / 'instances_val2017.json', '--val-images',
                    openmoji_root / 'val2017', '--batch-size', 3)
    assert code == 0, log
    assert 'base_ap50' in log
    for loss in ('loss_bbox', 'captions.tag.loss', 'mosaic.caption.loss'):
        assert loss in log
    trained = Config.fromfile(tmp_path / 'out' / 'finetune.py')
    assert trained.model.type == 'mmdet_clim.CLIMDetector'
    assert trained.train_dataloader.sampler.source_ratio == [1, 1, 1]
    check_plain(tmp_path / 'out', openmoji_root)


@pytest.mark.parametrize('file', [None, 'photos.json'])
def test_captions_alone(run_tool, detector, own, openmoji_root, tmp_path,
                        file):
    names, _ = own
    folder = tmp_path / 'photos'
    folder.mkdir()
    captioned = sorted((openmoji_root / 'captioned2017').glob('*.jpg'))[:6]
    for path, name in zip(captioned, NAMES + NAMES):
        (folder / path.name).symlink_to(path)
        if file is None:
            (folder / f'{path.stem}.txt').write_text(f'a {name} on a street')
    options = []
    if file is not None:
        coco = dict(
            images=[
                dict(id=n, file_name=path.name)
                for n, path in enumerate(captioned)
            ],
            annotations=[
                dict(id=n, image_id=n, caption=f'a {name} on a street')
                for n, name in zip(range(6), NAMES + NAMES)
            ])
        (tmp_path / file).write_text(json.dumps(coco))
        options = ['--captions', tmp_path / file]
    code, log = run(run_tool, detector, names, tmp_path / 'out', '--images',
                    folder, '--batch-size', 2, *options)
    assert code == 0, log
    assert 'loss_bbox: ' not in log and 'mosaic.tag.loss: ' in log
    captions = json.loads((tmp_path / 'out' / 'captions.json').read_text())
    assert len(captions['images']) == 6
    assert all(image['pos_category_ids'] for image in captions['images'])
    check_plain(tmp_path / 'out', openmoji_root)


def check_plain(work_dir, openmoji_root):
    """What is left has no wrapper, and finds one's own words."""
    weights = torch.load(work_dir / 'detector.pth', weights_only=True)
    assert not any(k.startswith('detector.') for k in weights['state_dict'])
    assert tuple(weights['meta']['dataset_meta']['classes']) == tuple(NAMES)
    image = str(next((openmoji_root / 'val2017').glob('*.jpg')))
    found = [
        CLIMInferencer(
            config,
            str(work_dir / 'detector.pth'),
            device='cpu',
            show_progress=False)(image)['predictions'][0]
        for config in (str(work_dir / 'detector.py'), None)
    ]
    assert found[0] == found[1]
    # mmdet alone: the config says what to import.
    detector = init_detector(
        str(work_dir / 'detector.py'),
        str(work_dir / 'detector.pth'),
        device='cpu')
    plain = inference_detector(detector, image).pred_instances
    assert plain.scores.tolist() == found[0]['scores']
    assert set(found[0]['names']) <= set(NAMES)


def test_wrong_paths_and_names(run_tool, detector, own, openmoji_root,
                               tmp_path):
    names, table = own
    code, log = run(run_tool, detector, tmp_path / 'no.txt', tmp_path / 'out',
                    '--images', tmp_path)
    assert code and 'no.txt does not exist' in log
    other = tmp_path / 'other.txt'
    other.write_text('unicorn')
    code, log = run(run_tool, detector, other, tmp_path / 'out', '--images',
                    openmoji_root / 'captioned2017', '--captions', table,
                    '--boxes',
                    openmoji_root / 'annotations' / 'instances_val2017.json')
    assert code and '--boxes: expected boxes of some of 1 classes' in log
    assert 'Traceback' not in log
    other.write_text('cat\ncat \n')
    code, log = run(run_tool, detector, other, tmp_path / 'out', '--images',
                    openmoji_root / 'captioned2017')
    assert code == 1 and "given twice: ['cat']" in log
    assert 'Traceback' not in log


def test_boxes_are_checked_before_the_training(run_tool, detector, own,
                                               openmoji_root, tmp_path):
    names, table = own
    annotations = openmoji_root / 'annotations'
    common = ['--images', openmoji_root / 'captioned2017', '--captions', table]
    boxes = annotations / 'instances_val2017.json'
    captions = annotations / 'captions_captioned2017_tags.json'
    some = tmp_path / 'some'
    some.mkdir()
    first = sorted((openmoji_root / 'val2017').iterdir())[0]
    (some / first.name).symlink_to(first)
    for options, message in (
        (('--boxes', captions), '--boxes: expected COCO annotations'),
        (('--boxes', names), '--boxes: expected COCO annotations'),
        (('--boxes', boxes), '--boxes: expected images in'),
        (('--val-boxes', boxes), '8 of 8 that are not there'),
        (('--val-boxes', boxes, '--val-images', some), '7 of 8'),
    ):
        code, log = run(run_tool, detector, names, tmp_path / 'out', *common,
                        *options)
        assert code == 1 and message in log and 'Traceback' not in log
    assert not (tmp_path / 'out').exists()


def test_other_captions_in_the_same_folder(run_tool, detector, own,
                                           openmoji_root, tmp_path):
    names, table = own
    options = ('--images', openmoji_root / 'captioned2017', '--captions',
               table)
    out = tmp_path / 'out'
    # Too small a batch stops after the captions, with no training.
    code, log = run(run_tool, detector, names, out, *options, '--batch-size',
                    1)
    assert code and 'batch_size: expected' in log
    names.write_text('cat\ndog')
    code, log = run(run_tool, detector, names, out, *options)
    assert code == 1 and '--overwrite to replace it' in log
    code, log = run(run_tool, detector, names, out, *options, '--overwrite',
                    '--batch-size', 1)
    assert 'batch_size: expected' in log
    written = json.loads((out / 'captions.json').read_text())
    assert [of['name'] for of in written['categories']] == ['cat', 'dog']


def test_weights_of_something_else(run_tool, detector, own, openmoji_root,
                                   tmp_path):
    names, table = own
    torch.save(dict(state_dict=dict(x=torch.zeros(1))), tmp_path / 'x.pth')
    code, log = run(run_tool, (detector[0], tmp_path / 'x.pth'), names,
                    tmp_path / 'out', '--images',
                    openmoji_root / 'captioned2017', '--captions', table)
    assert code and "none of ['x'] ... is a weight of FasterRCNN" in log
    assert not (tmp_path / 'out' / 'detector.pth').exists()


def test_the_config(detector, tmp_path):
    cfg = Config.fromfile(detector[0])
    data = OwnData(tmp_path / 'c.json', tmp_path, NAMES)
    new = finetune_config(cfg, detector[1], data, batch_size=8)
    # A quarter of the captioned images is whole.
    assert new.train_dataloader.sampler.source_ratio == [2, 6]
    assert new.val_dataloader is None
    assert cfg.model.type == 'mmdet.FasterRCNN'
    with pytest.raises(ValueError, match='batch_size: expected at least 2'):
        finetune_config(cfg, detector[1], data, batch_size=1)
    with pytest.raises(ValueError, match='iterations: expected'):
        finetune_config(cfg, detector[1], data, iterations=0)
    cfg.model.roi_head.bbox_head = dict(type='mmdet.Shared2FCBBoxHead')
    with pytest.raises(TypeError, match='expected a head with a vocabulary'):
        finetune_config(cfg, detector[1], data)
    cfg.test_dataloader.dataset.pipeline = []
    with pytest.raises(ValueError, match='test pipeline: expected a Resize'):
        resize_scale(cfg)
