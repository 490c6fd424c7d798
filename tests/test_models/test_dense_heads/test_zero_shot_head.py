# Licensed under the Apache License, Version 2.0.
"""Heads of mmdet that classify by text, against plain formulas."""
import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS

from mmdet_clim.datasets.vocabulary import Vocabulary
from mmdet_clim.models.dense_heads import ZeroShotHead, ZeroShotLayer
from mmdet_clim.models.dense_heads.zero_shot_head import ABSENT_LOGIT

CLASSES = ('cat', 'dog', 'cow', 'bus', 'cup')
SIGMOID = dict(type='mmdet.FocalLoss', use_sigmoid=True)
# Type of a head, its other arguments, priors per position, where its layers
# that classify stand.
HEADS = [
    ('mmdet.RetinaHead', dict(stacked_convs=1,
                              feat_channels=8), 9, ['retina_cls']),
    ('mmdet.FCOSHead',
     dict(stacked_convs=1, feat_channels=8, norm_cfg=None,
          loss_cls=SIGMOID), 1, ['conv_cls']),
    ('mmdet.GFLHead',
     dict(
         stacked_convs=1,
         feat_channels=32,
         anchor_generator=dict(
             type='mmdet.AnchorGenerator',
             ratios=[1.],
             octave_base_scale=8,
             scales_per_octave=1,
             strides=[8, 16, 32, 64, 128])), 1, ['gfl_cls']),
    ('mmdet.RTMDetSepBNHead',
     dict(
         stacked_convs=1,
         feat_channels=8,
         share_conv=True,
         with_objectness=False,
         exp_on_reg=False,
         anchor_generator=dict(
             type='mmdet.MlvlPointGenerator', offset=0,
             strides=[8, 16, 32])), 1, ['rtm_cls.0', 'rtm_cls.1',
                                        'rtm_cls.2']),
    ('mmdet.YOLOXHead', dict(stacked_convs=1, feat_channels=8), 1,
     [f'multi_level_conv_cls.{level}' for level in range(3)]),
]


@pytest.fixture
def classifier(text_encoder_cfg):
    return dict(text_encoder=text_encoder_cfg, templates=('{}', ))


@pytest.fixture
def vocabulary():
    return Vocabulary(CLASSES, CLASSES[:3])


@pytest.fixture
def build(classifier, vocabulary):

    def build(head_type, arguments):
        torch.manual_seed(0)
        return ZeroShotHead(
            copy.deepcopy(dict(type=head_type, in_channels=8, **arguments)),
            vocabulary, classifier)

    return build


@pytest.mark.parametrize('head_type, arguments, num_priors, names', HEADS)
def test_the_layers_that_classify_are_found(build, head_type, arguments,
                                            num_priors, names):
    head = build(head_type, arguments)
    assert isinstance(head, MODELS.get(head_type))
    assert [
        name for name, module in head.named_modules()
        if isinstance(module, ZeroShotLayer)
    ] == names
    for layer in head.class_layers:
        assert layer.num_priors == num_priors
        assert layer.projection.out_channels == 8 * num_priors
        assert layer.projection is not head.class_layers[-1].projection or \
            layer is head.class_layers[-1]
    maps = [torch.randn(2, 8, size, size) for size in (8, 4, 2)]
    if head_type not in ('mmdet.RTMDetSepBNHead', 'mmdet.YOLOXHead'):
        maps += [torch.randn(2, 8, 1, 1)] * 2
    head.init_weights()
    scores = head.eval()(tuple(maps))[0]
    for level, score in zip(maps, scores):
        assert score.shape == (2, num_priors * 5, *level.shape[-2:])
        assert score.isfinite().all()


def test_a_head_is_pickled_and_copied(build):
    """As processes that are spawned get it; its type is made at run time."""
    head = build('mmdet.FCOSHead', dict(feat_channels=8, norm_cfg=None)).eval()
    maps = tuple(torch.randn(1, 8, s, s) for s in (8, 4, 2, 1, 1))
    for again in (pickle.loads(pickle.dumps(head)), copy.deepcopy(head)):
        assert type(again) is type(head)
        torch.testing.assert_close(again(maps), head(maps))
        again.set_vocabulary(['cup', 'cat'])
        assert again.num_classes == 2 and head.num_classes == 5


@pytest.mark.parametrize('dtype', [torch.half, torch.bfloat16, torch.double])
def test_a_head_of_another_dtype(build, dtype):
    """Its classes stay in float32."""
    head = build('mmdet.RetinaHead', dict(stacked_convs=0)).eval()
    x = torch.randn(1, 8, 3, 4)
    expected = head.retina_cls(x)
    found = head.to(dtype).retina_cls(x.to(dtype))
    torch.testing.assert_close(found.float(), expected, rtol=.05, atol=.5)


def test_scores_are_those_of_the_formula(build, vocabulary):
    """Nine priors; each position and prior on its own, in a slow loop."""
    head = build('mmdet.RetinaHead', dict(stacked_convs=0))
    layer = head.retina_cls.eval()
    x = torch.randn(2, 8, 3, 4)
    texts = layer.class_embeddings
    embedded = layer.projection(x)
    found = layer(x)
    for prior in range(9):
        for row in range(3):
            for col in range(4):
                e = embedded[1, prior * 8:(prior + 1) * 8, row, col]
                expected = 25 * F.normalize(e, dim=0) @ texts.t() - 4.6
                torch.testing.assert_close(
                    found[1, prior * 5:(prior + 1) * 5, row, col], expected)


def test_the_layout_is_that_of_the_layer(build):
    """As AnchorHead unpacks it: N, H, W, priors, classes."""
    layer = build('mmdet.RetinaHead', dict(stacked_convs=0)).retina_cls.eval()
    x = torch.randn(1, 8, 2, 2)
    unpacked = layer(x).permute(0, 2, 3, 1).reshape(-1, 5)
    embeddings = layer.projection(x).permute(0, 2, 3, 1).reshape(-1, 8)
    torch.testing.assert_close(unpacked, layer.score(embeddings))


def test_novel_classes_have_no_part_in_training(build):
    head = build('mmdet.FCOSHead', HEADS[1][1]).train()
    x = torch.randn(1, 8, 3, 3)
    logits = head.conv_cls(x)
    assert (logits[:, 3:] == ABSENT_LOGIT).all()
    logits[:, 3:].sum().backward()
    assert head.conv_cls.projection.weight.grad.abs().sum() == 0
    loss = F.binary_cross_entropy_with_logits(
        head.conv_cls(x), torch.zeros(1, 5, 3, 3), reduction='sum')
    known = F.binary_cross_entropy_with_logits(
        head.conv_cls(x)[:, :3], torch.zeros(1, 3, 3, 3), reduction='sum')
    torch.testing.assert_close(loss, known)
    assert (head.eval().conv_cls(x)[:, 3:] > ABSENT_LOGIT).all()


def test_a_background_class_is_learned(classifier, vocabulary):
    layer = ZeroShotLayer(
        torch.nn.Conv2d(4, 12, 3, padding=1),
        2,
        True,
        vocabulary=vocabulary,
        **classifier)
    scores = layer(torch.randn(1, 4, 2, 2))
    assert scores.shape == (1, 12, 2, 2)
    scores.view(1, 2, 6, 2, 2).softmax(2)[:, :, 5].sum().backward()
    assert layer.background.grad.abs().sum() > 0


def test_scores_are_exact_under_mixed_precision(classifier, vocabulary):
    layer = ZeroShotLayer(
        torch.nn.Linear(4, 6), 1, True, vocabulary=vocabulary, **classifier)
    embeddings = torch.randn(3, 8)
    with torch.autocast('cpu', torch.bfloat16):
        mixed = layer.score(embeddings)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, layer.score(embeddings))


def test_levels_with_different_numbers_of_priors(classifier, vocabulary):
    """SSD: 4 and 6 priors, and a background class."""
    head = ZeroShotHead(
        dict(
            type='mmdet.SSDHead',
            in_channels=(8, 4, 4),
            anchor_generator=dict(
                type='mmdet.SSDAnchorGenerator',
                scale_major=False,
                input_size=300,
                basesize_ratio_range=(.2, .9),
                strides=[8, 16, 32],
                ratios=[[2], [2, 3], [2]])), vocabulary, classifier)
    assert [layer.num_priors for layer in head.class_layers] == [4, 6, 4]
    scores, _ = head.eval()(
        (torch.randn(1, 8, 4, 4), torch.randn(1, 4, 2,
                                              2), torch.randn(1, 4, 1, 1)))
    assert [s.shape for s in scores] == [(1, 24, 4, 4), (1, 36, 2, 2),
                                         (1, 24, 1, 1)]


def test_detr_gets_a_background(classifier, vocabulary):
    head = ZeroShotHead(
        dict(
            type='mmdet.DETRHead',
            embed_dims=8,
            loss_cls=dict(
                type='mmdet.CrossEntropyLoss',
                bg_cls_weight=.1,
                use_sigmoid=False,
                class_weight=1.)), vocabulary, classifier)
    assert head.fc_cls.background is not None
    scores, boxes = head.eval()(torch.randn(2, 3, 7, 8))
    assert scores.shape == (2, 3, 7, 6)
    assert boxes.shape == (2, 3, 7, 4)


def test_layers_shared_and_not_of_dino(classifier, vocabulary):
    for shared, count in ((True, 1), (False, 3)):
        head = ZeroShotHead(
            dict(
                type='mmdet.DINOHead',
                embed_dims=8,
                share_pred_layer=shared,
                num_pred_layer=3,
                as_two_stage=True,
                loss_cls=SIGMOID), vocabulary, classifier)
        head.init_weights()
        assert len(head.class_layers) == count
        assert all(
            isinstance(layer, ZeroShotLayer) for layer in head.cls_branches)
        assert head.cls_branches[2].out_features == 5


def test_another_vocabulary(build):
    head = build('mmdet.YOLOXHead', HEADS[4][1]).eval()
    x = tuple(torch.randn(1, 8, size, size) for size in (4, 2, 1))
    before = head(x)[0]
    head.set_vocabulary(['cup', 'cat'])
    assert head.num_classes == head.cls_out_channels == 2
    for old, new in zip(before, head(x)[0]):
        torch.testing.assert_close(new, old[:, [4, 0]])
    with pytest.raises(ValueError, match=r'expected shape \(1, D\)'):
        head.set_vocabulary(['x'], torch.ones(2, 8))


@pytest.mark.parametrize('head, message', [
    (dict(type='mmdet.AutoAssignHead', in_channels=8), 'center_prior.mean'),
    (dict(type='mmdet.YOLOV3Head', in_channels=[8] * 3,
          out_channels=[8] * 3), 'convs_pred.0.weight'),
    (dict(type='mmdet.FCNMaskHead',
          class_agnostic=True), 'none of its layers'),
    (dict(type='mmdet.GARetinaHead', in_channels=8), 'its MaskedConv2d'),
])
def test_heads_that_can_not(classifier, head, message):
    with pytest.raises(TypeError, match=message):
        ZeroShotHead(head, CLASSES, classifier)
