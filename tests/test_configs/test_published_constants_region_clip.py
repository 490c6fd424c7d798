# Licensed under the Apache License, Version 2.0.
"""CLIM on CLIP against the constants of REFERENCE.md, section 4, by hand."""
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.registry import MODELS

import mmdet_clim  # noqa: F401

sys.path.insert(0, str(Path(__file__).parent))
from recipe_values import (  # noqa: E402  isort: skip
    differences, look_up, rates, types)

PIPELINE = 'train_dataloader.dataset.pipeline'
CLIM = 'model.objectives.clim'
REGIONS = 'region_dataset.pipeline'
PUBLISHED = {
    # Data: 4 GPUs of 32 images, crops of 0.9 to 1.0 of the area.
    'train_dataloader.batch_size': 32,
    'auto_scale_lr.base_batch_size': 4 * 32,
    f'{PIPELINE}.RandomResizedCrop.scale': (0.9, 1.0),
    f'{PIPELINE}.LoadImageText': dict(type='mmdet_clim.LoadImageText'),
    # 4 + 9 + 16 images in mosaics of 1024 pixels.
    f'{CLIM}.type': 'mmdet_clim.MosaicTextObjective',
    f'{CLIM}.grids': ((2, 2), (3, 3), (4, 4)),
    f'{CLIM}.mosaic_size': (1024, 1024),
    # Symmetric InfoNCE over the batch of all GPUs, the scale learned.
    f'{CLIM}.loss.kind': 'infonce',
    f'{CLIM}.loss.gather': True,
    f'{CLIM}.loss.learn_temperature': True,
    # What is read, and what is frozen.
    'model.image_tower.mode': 'value',
    'model.text_encoder.type': 'mmdet_clim.OpenCLIPTextEncoder',
    # AdamW, warm-up, cosine.
    'optim_wrapper.optimizer.type': 'AdamW',
    'optim_wrapper.optimizer.lr': 1e-5,
    'optim_wrapper.optimizer.weight_decay': 0.1,
    'param_scheduler.LinearLR.end': 1000,
    'param_scheduler.LinearLR.by_epoch': False,
    'param_scheduler.CosineAnnealingLR.eta_min': 0,
    # Evaluation: squares of 1024 pixels, bicubic, ViLD's templates.
    f'{REGIONS}.Resize.scale': (1024, 1024),
    f'{REGIONS}.Resize.keep_ratio': True,
    f'{REGIONS}.Resize.interpolation': 'bicubic',
    f'{REGIONS}.Pad.size': (1024, 1024),
    f'{REGIONS}.FilterRegionsByArea.min_area': 64**2,
    f'{REGIONS}.FilterRegionsByArea.max_area': 1024**2,
    f'{REGIONS}.FilterRegionsByArea.max_regions': 100,
    'model.templates': 'vild',
    'model.num_things': 80,
}
VIT = {
    f'{PIPELINE}.RandomResizedCrop.size': 224,
    'model.image_size': (224, 224),
    'clip.model': 'ViT-B-16-quickgelu',
    'model.unlocked_blocks': 6,
    'optim_wrapper.optimizer.betas': (0.9, 0.98),
    'optim_wrapper.optimizer.eps': 1e-6,
    'custom_hooks.WeightAveragingHook.alpha': 0.7,
}
RN50X64 = {
    f'{PIPELINE}.RandomResizedCrop.size': 448,
    'model.image_size': (448, 448),
    'clip.model': 'RN50x64-quickgelu',
    'model.unlocked_blocks': 1,  # layer4, and of the pool what its test says
    'optim_wrapper.optimizer.betas': (0.9, 0.999),
    'optim_wrapper.optimizer.eps': 1e-8,
    'custom_hooks.WeightAveragingHook.alpha': 0.5,
}
COCO = {
    'train_cfg.max_epochs': 100,
    'param_scheduler.CosineAnnealingLR.end': 100,
    'train_dataloader.dataset.filter_cfg': dict(tagged=True),
}
CC3M = {'train_cfg.max_epochs': 3, 'param_scheduler.CosineAnnealingLR.end': 3}
RECIPES = {
    'clim_vit-b-16_coco-captions': {**PUBLISHED, **VIT, **COCO},
    'clim_vit-b-16_cc3m': {**PUBLISHED, **VIT, **CC3M},
    'clim_rn50x64_coco-captions': {**PUBLISHED, **RN50X64, **COCO},
    'clim_rn50x64_cc3m': {**PUBLISHED, **RN50X64, **CC3M},
}  # yapf: disable


def read(repository, name):
    return Config.fromfile(repository / f'configs/region_clip/{name}.py')


@pytest.mark.parametrize('name', RECIPES)
def test_constants(repository, name):
    cfg = read(repository, name)
    assert differences(cfg, RECIPES[name]) == {}
    # No flip, and nothing else that changes an image.
    assert types(look_up(cfg, PIPELINE)) == [
        'LoadImageText', 'RandomResizedCrop', 'PackRegionTextInputs'
    ]
    # As many classes are things as the data set says.
    assert 'num_whole' not in cfg.model.objectives.clim


def test_of_cc3m_all_captions_are_used(repository):
    dataset = read(repository, 'clim_vit-b-16_cc3m').train_dataloader.dataset
    assert 'filter_cfg' not in dataset


def test_the_learning_rate(repository):
    """1000 iterations up to 1e-5, then a cosine down to 0."""
    cfg = read(repository, 'clim_vit-b-16_cc3m')
    made = [rate for rate, _ in rates(cfg, 3000, 1000)]
    assert made[0] == pytest.approx(1e-8, rel=1e-2)
    cosine = [5e-6 * (1 + np.cos(np.pi * step / 3000)) for step in range(3000)]
    np.testing.assert_allclose(made[1000:], cosine[1000:], rtol=1e-3)
    np.testing.assert_allclose(
        made[:1000],
        [c * (step + 1) / 1000 for step, c in enumerate(cosine[:1000])],
        rtol=1e-3)


@pytest.mark.parametrize('name, side', [('clim_vit-b-16_coco-captions', 224),
                                        ('clim_rn50x64_coco-captions', 448)])
def test_a_batch_of_the_shipped_pipeline(repository, tmp_path, name, side):
    """32 images: whole cells of three mosaics of 1024, and three whole."""
    register_all_modules()
    cfg = read(repository, name)
    pipeline = Compose(look_up(cfg, PIPELINE))
    path = str(tmp_path / 'a.png')
    cv2.imwrite(path, np.full((427, 640, 3), 90, np.uint8))
    samples = [
        pipeline(dict(img_path=path, img_id=i, captions=['a cat']))
        for i in range(32)
    ]
    inputs = torch.stack([sample['inputs'] for sample in samples])
    assert inputs.shape == (32, 3, side, side)
    shapes = [sample['data_samples'].img_shape for sample in samples]
    assert set(shapes) == {(side, side)}
    objective = MODELS.build(cfg.model.objectives.clim)
    mosaics, rois = objective.mosaic(inputs.float(), shapes)
    assert mosaics.shape == (3, 3, 1024, 1024)
    assert len(rois) == 29
    assert torch.bincount(rois[:, 0].long()).tolist() == [4, 9, 16]
    extents = rois[:, 3:] - rois[:, 1:3]
    for number, cells in enumerate((2, 3, 4)):
        own = extents[rois[:, 0] == number]
        torch.testing.assert_close(own, torch.full_like(own, 1024 / cells))


def test_a_region_of_the_shipped_evaluation(repository):
    """Of 640 x 480 pixels: resized 1.6 times, padded below to a square."""
    register_all_modules()
    cfg = read(repository, 'clim_vit-b-16_coco-captions')
    # 39 x 39 pixels are 62.4 x 62.4 here, and 40 x 40 are 64 x 64.
    boxes = np.array([[0, 0, 39, 39], [10, 20, 50, 60], [0, 0, 640, 480]],
                     np.float32)
    sample = dict(
        img=np.full((480, 640, 3), 90, np.uint8),
        img_shape=(480, 640),
        ori_shape=(480, 640),
        img_id=1,
        img_path='a.png',
        gt_bboxes=HorizontalBoxes(boxes),
        gt_bboxes_labels=np.array([1, 2, 3]),
        gt_ignore_flags=np.zeros(3, bool),
        gt_masks=BitmapMasks(np.ones((3, 480, 640), np.uint8), 480, 640))
    packed = Compose(look_up(cfg, REGIONS)[2:])(sample)
    assert packed['inputs'].shape == (3, 1024, 1024)
    # 480 pixels are 768 of them; below, CLIP's mean colour in BGR.
    below = packed['inputs'][:, 768:]
    assert below.flatten(1).unique(dim=1).flatten().tolist() == [104, 117, 123]
    regions = packed['data_samples'].gt_instances
    assert regions.labels.tolist() == [2, 3]
    torch.testing.assert_close(
        regions.bboxes.tensor,
        torch.tensor([[16., 32, 80, 96], [0, 0, 1024, 768]]))
    assert regions.masks.masks.shape == (2, 1024, 1024)


def test_the_comparison_with_regionclip(repository):
    """Federated BCE on 100 nouns, CLIP's own scale and no bias."""
    cfg = read(repository, 'region-labels_vit-b-16_coco-captions')
    labels = cfg.model.objectives.labels
    assert labels.loss.type == 'mmdet_clim.FederatedClassLoss'
    assert labels.loss.num_sampled == 100
    assert 'temperature' not in labels and 'bias' not in labels
    assert cfg.model.image_size == (1024, 1024)


@pytest.mark.parametrize('name, side, blocks', [
    ('clim_vit-l-14-336_coco-captions', 336, 12),
    ('clim_vit-l-14-336_cc3m', 336, 12),
])
def test_what_is_ours_of_vit_l(repository, name, side, blocks):
    """No recipe of it is published: that of ViT-B/16 at CLIP's own size."""
    cfg = read(repository, name)
    own = {
        f'{PIPELINE}.RandomResizedCrop.size': side,
        'model.image_size': (side, side),
        'clip.model': 'ViT-L-14-336-quickgelu',
        'model.unlocked_blocks': blocks
    }
    assert differences(cfg, {**PUBLISHED, **VIT, **own}) == {}


@pytest.mark.parametrize('name, images, gpus', [
    ('clim_vit-b-16_coco-captions_box-regions', 32, 4),
    ('region-labels_vit-b-16_coco-captions', 4, 8),
    ('self-distillation_vit-b-16_coco-captions', 4, 8),
])
def test_the_batch_that_the_rate_is_for(repository, name, images, gpus):
    cfg = read(repository, name)
    assert cfg.train_dataloader.batch_size == images
    assert cfg.auto_scale_lr.base_batch_size == gpus * images


def test_boxes_are_measured_whatever_their_size(repository):
    cfg = read(repository, 'clim_vit-b-16_coco-captions_box-regions')
    boxes = cfg.val_dataloader.dataset.datasets[0].pipeline
    assert types(boxes) == [
        'LoadImageFromFile', 'LoadAnnotations', 'Resize', 'Pad',
        'PackDetInputs'
    ]
    assert cfg.model.num_things is None
