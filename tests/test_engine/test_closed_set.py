# Licensed under the Apache License, Version 2.0.
"""Closed-set detectors of mmdet as ones that classify by text."""
import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import init_default_scope
from torch import nn

from mmdet_clim.engine.checkpoints import load_weights
from mmdet_clim.engine.closed_set import (
    is_closed_set,
    trained_classes,
    zero_shot_config,
    zero_shot_start,
    zero_shot_weights,
)
from mmdet_clim.models.roi_heads import ZeroShotClassifier
from mmdet_clim.registry import MODELS

NAMES = ['cat', 'fire truck', 'pizza']


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmdet')


def config(name):
    """A config of mmdet with the classes above and narrow heads."""
    cfg = get_config(f'mmdet::{name}')
    model = cfg.model
    if 'roi_head' in model:
        heads = model.roi_head.bbox_head
        for head in heads if isinstance(heads, list) else [heads]:
            head.update(num_classes=3, in_channels=4, fc_out_channels=8)
    else:
        model.bbox_head.num_classes = 3
    return cfg


def heads(model):
    """The classifying heads alone, with the names that they have in it."""
    if 'roi_head' not in model:
        return nn.ModuleDict(dict(bbox_head=MODELS.build(model.bbox_head)))
    given = model.roi_head.bbox_head
    built = nn.ModuleList(map(MODELS.build, given)) if isinstance(
        given, list) else MODELS.build(given)
    return nn.ModuleDict(dict(roi_head=nn.ModuleDict(dict(bbox_head=built))))


@pytest.mark.parametrize('name', [
    'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py',
    'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'retinanet/retinanet_r50_fpn_1x_coco.py',
    'yolox/yolox_tiny_8xb8-300e_coco.py',
    'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    'ssd/ssd300_coco.py',
    'dino/dino-4scale_r50_8xb2-12e_coco.py',
])
def test_the_old_classes_keep_their_logits(name):
    cfg = config(name)
    assert is_closed_set(cfg)
    torch.manual_seed(0)
    model = cfg.model
    if name.startswith('dino'):
        # As the detector tells its head.
        model.bbox_head.update(
            num_pred_layer=3, share_pred_layer=False, as_two_stage=True)
        model.bbox_head.pop('sync_cls_avg_factor')
    old = heads(copy.deepcopy(model)).eval()
    new_cfg = zero_shot_config(cfg, NAMES)
    assert is_closed_set(cfg) and not is_closed_set(new_cfg)
    new = heads(new_cfg.model).eval()
    weights = zero_shot_weights(new, old.state_dict())
    load_weights(new, weights)
    classifiers = [(place, part) for place, part in new.named_modules()
                   if isinstance(part, ZeroShotClassifier)]
    assert classifiers
    for place, part in classifiers:
        layer = old.get_submodule(place)
        is_conv = isinstance(layer, nn.Conv2d)
        x = torch.randn(2, layer.in_channels, 3, 3) if is_conv \
            else torch.randn(5, layer.in_features)
        expected, embeddings = layer(x), part.embed(x)
        if is_conv:
            embeddings = part.split(embeddings).movedim(2, -1)
            expected = expected.unflatten(1,
                                          (embeddings.shape[1], -1)).movedim(
                                              2, -1)
        if 'roi_head' in place:
            # Against the background of a softmax.
            expected = expected[..., :-1] - expected[..., -1:]
        found = embeddings @ part.class_embeddings.t()
        torch.testing.assert_close(
            found, expected[..., :3], rtol=1e-3, atol=1e-3)
    if 'mask' in name:
        assert 'mask_head' not in new_cfg.model.roi_head
        load = new_cfg.train_dataloader.dataset.pipeline[1]
        assert load.type == 'LoadAnnotations' and not load.with_mask
    if name.startswith(('faster', 'mask')):
        x = torch.randn(2, 8)
        of_classes = old.roi_head.bbox_head.fc_reg(x).unflatten(1, (3, 4))
        torch.testing.assert_close(
            new.roi_head.bbox_head.fc_reg(x), of_classes.mean(1))


def test_weights_of_other_classes():
    cfg = config('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py')
    old = heads(cfg.model).state_dict()
    new = heads(zero_shot_config(cfg, NAMES[:2]).model)
    with pytest.raises(
            ValueError,
            match='bbox_head.conv_cls has 3 outputs, expected 1 for each of '
            '2 classes'):
        zero_shot_weights(new, old)
    with pytest.raises(ValueError, match='expected bbox_head.conv_cls.weight'):
        zero_shot_weights(new, {'backbone.conv1.weight': torch.ones(1)})


def test_which_classes_a_checkpoint_knows():
    cfg = config('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py')
    for meta in (dict(dataset_meta=dict(classes=NAMES)),
                 dict(dataset_meta=dict(CLASSES=tuple(NAMES))),
                 dict(CLASSES=NAMES)):
        assert trained_classes(cfg, dict(meta=meta)) == NAMES
    # That of CocoDataset.
    found = trained_classes(cfg, dict(state_dict={}))
    assert len(found) == 80 and found[0] == 'person'
    cfg.test_dataloader.dataset.metainfo = dict(classes=('a ', 'b'))
    assert trained_classes(cfg, {}) == ['a', 'b']
    with pytest.raises(ValueError, match="meta\\['dataset_meta'\\]"):
        trained_classes(Config(dict(model=cfg.model)), {})


def test_what_has_no_zero_shot_form(repository, tmp_path):
    cfg = config('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py')
    cfg.model.roi_head.bbox_head.type = 'SABLHead'
    with pytest.raises(TypeError, match='SABLHead has no zero-shot form'):
        zero_shot_config(cfg, NAMES)
    for name in ('faster-rcnn_r18-c4_256_boxes.py',
                 'faster-rcnn_r18-c4_256_captions-tags_clim.py',
                 'mm-grounding-dino_r18_160_base.py'):
        path = repository / 'configs/openmoji' / name
        weights = tmp_path / 'weights.pth'
        # Neither is looked into.
        assert zero_shot_start(path, weights, tmp_path) == (path, weights)
    assert not list(tmp_path.iterdir())
