# Licensed under the Apache License, Version 2.0.
"""F-ViT and F-VLM against the constants of REFERENCE.md, section 5."""
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmdet.utils import register_all_modules
from mmengine.config import Config

import mmdet_clim  # noqa: F401
from mmdet_clim.datasets.vocabulary import build_vocabulary

sys.path.insert(0, str(Path(__file__).parent))
from recipe_values import (  # noqa: E402  isort: skip
    differences, look_up, rates, types)

NORM = dict(type='SyncBN', requires_grad=True)
HEAD = 'model.roi_head.bbox_head'
PUBLISHED = {
    # 2 convolutions in the RPN; 4 + 2 + 1 layers in the box head.
    'model.rpn_head.num_convs': 2,
    f'{HEAD}.num_shared_convs': 4,
    f'{HEAD}.num_shared_fcs': 2,
    f'{HEAD}.num_cls_fcs': 1,
    f'{HEAD}.num_reg_fcs': 1,
    f'{HEAD}.reg_class_agnostic': True,
    # A softmax with a learned background, the scale learned from 50 on.
    f'{HEAD}.classifier.type': 'mmdet_clim.SoftmaxZeroShotClassifier',
    f'{HEAD}.classifier.temperature': 50.0,
    f'{HEAD}.classifier.templates': 'vild',
    'model.neck.norm_cfg': NORM,
    f'{HEAD}.norm_cfg': NORM,
    'model.neck.out_channels': 256,
}
VIT = {
    'model.backbone.type': 'mmdet_clim.OpenCLIPViT',
    'model.backbone.model': 'ViT-B-16-quickgelu',
    'model.backbone.mode': 'value',
    'model.backbone.taps': (3, 5, 7, 11),
    'model.backbone.norm_cfg': NORM,
    'model.rpn_head.type': 'mmdet.RPNHead',
    'param_scheduler.LinearLR.end': 250,
    'optim_wrapper.optimizer.type': 'AdamW',
}
COCO = {
    'model.neck.type': 'mmdet.FPN',
    'train_dataloader.batch_size': 8,
    'auto_scale_lr.base_batch_size': 64,
    'optim_wrapper.optimizer.lr': 1e-4,
    'optim_wrapper.optimizer.weight_decay': 0.1,
    'train_cfg.max_epochs': 3,
    'model.test_cfg.rpn.nms_pre': 1000,
    'model.test_cfg.rcnn.score_thr': 0.01,
    'model.test_cfg.rcnn.nms.iou_threshold': 0.4,
    'model.test_cfg.rcnn.max_per_img': 100,
    'model.roi_head.alpha': 0.1,
    'model.roi_head.beta': 0.8,
    'model.roi_head.clip_temperature': 75,
    f'{HEAD}.loss_cls.background_weight': 0.6,
}
LVIS = {
    'model.roi_head.mask_head.norm_cfg': NORM,
    'model.roi_head.mask_head.class_agnostic': True,
    'model.test_cfg.rpn.nms_pre': 2000,
    'model.test_cfg.rcnn.score_thr': 1e-4,
    'model.test_cfg.rcnn.nms.iou_threshold': 0.5,
    'model.test_cfg.rcnn.max_per_img': 300,
    'model.roi_head.alpha': 0.35,
    'model.roi_head.beta': 0.65,
    'model.roi_head.clip_temperature': 50,
    f'{HEAD}.loss_cls.background_weight': 0.9,
}
LVIS_VIT = {
    'model.neck.type': 'mmdet.NASFPN',
    'model.neck.stack_times': 7,
    'auto_scale_lr.base_batch_size': 16 * 8,
    'optim_wrapper.optimizer.lr': 4e-4,
    'optim_wrapper.optimizer.weight_decay': 0.05,
    'optim_wrapper.clip_grad.max_norm': 35,
    'train_cfg.max_epochs': 48,
    'param_scheduler.MultiStepLR.milestones': [32, 44],
}
LVIS_RN50X64 = {
    'model.backbone.type': 'mmdet_clim.OpenCLIPResNet',
    'model.backbone.model': 'RN50x64-quickgelu',
    'model.neck.type': 'mmdet.FPN',
    'model.rpn_head.type': 'mmdet_clim.NormRPNHead',
    'model.rpn_head.norm_cfg': NORM,
    'auto_scale_lr.base_batch_size': 32 * 8,
    'optim_wrapper.optimizer.type': 'SGD',
    'optim_wrapper.optimizer.lr': 0.36,
    'train_cfg.max_iters': 2880,
    'param_scheduler.MultiStepLR.milestones': [2304, 2592, 2736],
}
RECIPES = {
    'ov_coco/fvit_vit-b-16_3e_ov-coco': ({**PUBLISHED, **VIT, **COCO}, 640),
    'ov_lvis/fvit_vit-b-16_48e_ov-lvis': (
        {**PUBLISHED, **VIT, **LVIS, **LVIS_VIT}, 640),
    'ov_lvis/fvlm_rn50x64_2880_ov-lvis': (
        {**PUBLISHED, **LVIS, **LVIS_RN50X64}, 1024),
}  # yapf: disable
NAMES = [f'{name}{clim}' for name in RECIPES for clim in ('', '_clim')]


@pytest.fixture(scope='module')
def read(repository):
    """``read(name)``: a resolved recipe, and its image size."""
    register_all_modules()

    def one(name):
        cfg = Config.fromfile(repository / f'configs/fvit/{name}.py')
        return cfg, RECIPES[name.replace('_clim', '')][1]

    return one


def test_values_are_looked_up_by_name():
    cfg = dict(a=[dict(type='x.B', c=1), dict(type='D')])
    assert look_up(cfg, 'a.B.c') == 1
    assert differences(cfg, {
        'a.B.c': 1,
        'a.B.type': 'y'
    }) == {
        'a.B.type': ('x.B', 'y')
    }
    with pytest.raises(AssertionError, match='a.E: 0 of E'):
        look_up(cfg, 'a.E')


@pytest.mark.parametrize('name', NAMES)
def test_constants(read, name):
    cfg, side = read(name)
    table = dict(RECIPES[name.replace('_clim', '')][0])
    dataset = 'train_dataloader.dataset'
    if 'lvis' in name:
        dataset += '.dataset'
    table.update({
        f'{dataset}.pipeline.RandomResize.scale': (side, side),
        f'{dataset}.pipeline.RandomResize.ratio_range': (0.1, 2.0),
        f'{dataset}.pipeline.RandomCrop.crop_size': (side, side),
        f'{dataset}.pipeline.Pad.size': (side, side),
        f'{dataset}.pipeline.RandomFlip.prob': 0.5,
        'test_dataloader.dataset.pipeline.Resize.scale': (side, side),
        'test_dataloader.dataset.pipeline.Pad.size': (side, side),
    })
    assert differences(cfg, table) == {}
    assert types(look_up(cfg, dataset).pipeline) == [
        'LoadImageFromFile', 'LoadAnnotations', 'RandomResize', 'RandomCrop',
        'FilterAnnotations', 'Pad', 'RandomFlip', 'PackDetInputs'
    ]
    assert cfg.test_dataloader == cfg.val_dataloader
    if 'lvis' not in name or 'rn50x64' in name:
        assert 'clip_grad' not in cfg.optim_wrapper
    # What is trained and how depends on the CLIP in nothing but its weights.
    plain = read(name.replace('_clim', ''))[0]
    assert plain.model.backbone.pretrained != cfg.model.backbone.pretrained \
        or '_clim' not in name


@pytest.mark.parametrize('name', [name for name in NAMES if 'coco' in name])
def test_80_classes_on_coco(read, name):
    """In the softmax, 48 of them base; 65 are evaluated."""
    cfg, _ = read(name)
    vocabulary = build_vocabulary(look_up(cfg, f'{HEAD}.vocabulary'))
    assert len(vocabulary) == 80
    assert sum(vocabulary.is_base) == 48
    assert vocabulary.names[0] == 'person'
    assert vocabulary.names[79] == 'toothbrush'
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        data = build_vocabulary(dict(dataset=loader.dataset.type))
        assert data.names == vocabulary.names


def sample(height, width, masks):
    """An image of one colour with a box in its middle half."""
    box = [[width / 4, height / 4, 3 * width / 4, 3 * height / 4]]
    found = dict(
        img=np.full((height, width, 3), 200, np.uint8),
        img_shape=(height, width),
        ori_shape=(height, width),
        img_id=1,
        img_path='a.jpg',
        gt_bboxes=HorizontalBoxes(np.array(box, np.float32)),
        gt_bboxes_labels=np.array([3]),
        gt_ignore_flags=np.zeros(1, bool))
    if masks:
        found['gt_masks'] = BitmapMasks(
            np.ones((1, height, width), np.uint8), height, width)
    return found


@pytest.mark.parametrize('name', [name for name in NAMES if 'clim' in name])
def test_images_of_the_shipped_pipelines(read, name):
    """Squares whatever the image, padded with CLIP's mean."""
    cfg, side = read(name)
    dataset = cfg.train_dataloader.dataset
    pipeline = (dataset.dataset if 'lvis' in name else dataset).pipeline
    train = Compose(pipeline[2:])
    scales = set()
    for seed in range(6):
        np.random.seed(seed)
        found = train(sample(300, 421, 'lvis' in name))
        assert found['inputs'].shape == (3, side, side)
        assert found['data_samples'].img_shape == (side, side)
        # The colour of the image and that of the padding, in BGR.
        padding = torch.tensor([104, 117, 123])[:, None, None]
        padded = (found['inputs'] == padding).all(0)
        assert (padded | (found['inputs'] == 200).all(0)).all()
        instances = found['data_samples'].gt_instances
        for x1, y1, x2, y2 in instances.bboxes.tensor.tolist():
            assert 0 <= x1 < x2 <= side and 0 <= y1 < y2 <= side
            scales.add(round(x2 - x1))
        if 'lvis' in name:
            assert instances.masks.masks.shape[1:] == (side, side)
    assert len(scales) > 2  # they are jittered

    steps = [
        step for step in cfg.test_dataloader.dataset.pipeline
        if not step.type.startswith(('Load', 'mmdet.Load'))
    ]
    found = Compose(steps)(sample(300, 400, False))
    assert found['inputs'].shape == (3, side, side)
    # 300 x 400 pixels fill three quarters of the square; by hand.
    filled = found['inputs'][:, :side * 3 // 4]
    assert filled.min() == filled.max() == 200
    below = found['inputs'][:, side * 3 // 4:].flatten(1).unique(dim=1)
    assert below.flatten().tolist() == [104, 117, 123]


def test_coco_has_no_steps_of_the_rate(read):
    cfg, _ = read('ov_coco/fvit_vit-b-16_3e_ov-coco')
    made = rates(cfg, 300, 100)
    assert made[0][0] == pytest.approx(1e-7)
    assert all(rate == pytest.approx(1e-4) for rate, _ in made[249:])
    # Of log(tau): tau, from 50 on, moves as if it were learned itself.
    for rate, temperature in made:
        assert temperature == pytest.approx(rate / 50)


def test_steps_of_the_rate_on_lvis(read):
    """Six iterations for an epoch's length, which is none of 250."""
    cfg, _ = read('ov_lvis/fvit_vit-b-16_48e_ov-lvis')
    made = [rate for rate, _ in rates(cfg, 48 * 10, 10)]
    expected = [
        4e-4 * (.1 if step >= 320 else 1) * (.1 if step >= 440 else 1)
        for step in range(480)
    ]
    np.testing.assert_allclose(made[249:], expected[249:])


def test_the_rate_of_rn50x64(read):
    """From 0.009 to 0.36 in 250 iterations; three steps."""
    cfg, _ = read('ov_lvis/fvlm_rn50x64_2880_ov-lvis')
    made = rates(cfg, 2880, 1)
    rate = [of_weights for of_weights, _ in made]
    assert rate[0] == pytest.approx(.009)
    assert rate[125] == pytest.approx(.009 + (.36 - .009) * 125 / 249)
    np.testing.assert_allclose(rate[249:2304], .36)
    np.testing.assert_allclose(rate[2304:2592], .036)
    np.testing.assert_allclose(rate[2592:2736], .0036)
    np.testing.assert_allclose(rate[2736:], .00036)
    for of_weights, of_temperature in made:
        assert of_temperature == pytest.approx(of_weights / 50**2)


def test_a_step_moves_tau_as_if_it_were_learned_itself(read):
    """What the rate of its logarithm is for: the same step to first order."""
    for name, kind in (('ov_coco/fvit_vit-b-16_3e_ov-coco', torch.optim.AdamW),
                       ('ov_lvis/fvlm_rn50x64_2880_ov-lvis', torch.optim.SGD)):
        keys = read(name)[0].optim_wrapper.paramwise_cfg.custom_keys
        multiplier = keys.log_temperature.lr_mult
        moved = []
        for learn_log in (True, False):
            start = 50.
            value = torch.nn.Parameter(
                torch.tensor(
                    math.log(start) if learn_log else start,
                    dtype=torch.float64))
            rate = 1e-3 * (multiplier if learn_log else 1)
            optimizer = kind([value], lr=rate, weight_decay=0.)
            tau = value.exp() if learn_log else value
            (tau * .3).backward()
            optimizer.step()
            tau = value.exp() if learn_log else value
            moved.append(tau.item() - start)
        assert moved[0] == pytest.approx(moved[1], rel=2e-2)
        assert moved[0] < 0


def test_either_activation_by_an_option(repository):
    """As --cfg-options sets it; the published detectors ran with GELU."""
    cfg = Config.fromfile(
        repository / 'configs/fvit/ov_coco/fvit_vit-b-16_3e_ov-coco_clim.py')
    assert 'quick_gelu' not in cfg.model.backbone
    cfg.merge_from_dict({'model.backbone.quick_gelu': False})
    assert cfg.model.backbone.quick_gelu is False
