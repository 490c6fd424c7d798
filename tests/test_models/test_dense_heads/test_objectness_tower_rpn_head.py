# Licensed under the Apache License, Version 2.0.
import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS


@pytest.fixture
def head():
    torch.manual_seed(0)
    return MODELS.build(
        dict(
            type='mmdet_clim.ObjectnessTowerRPNHead',
            in_channels=4,
            feat_channels=4,
            anchor_generator=dict(
                type='mmdet.AnchorGenerator',
                scales=[8],
                ratios=[.5, 1., 2.],
                strides=[4, 8]),
            bbox_coder=dict(type='mmdet.DeltaXYWHBBoxCoder'),
            loss_cls=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=True)))


def test_scores_by_the_published_layers(head):
    """Convolution, ReLU, and the layer of the anchors, on the RPN's own."""
    levels = [torch.randn(2, 4, 6, 5), torch.randn(2, 4, 3, 3)]
    weights = head.state_dict()
    assert [k for k in weights if 'rpn_cls' in k] == [
        'rpn_cls.0.weight', 'rpn_cls.0.bias', 'rpn_cls.2.weight',
        'rpn_cls.2.bias'
    ]
    assert weights['rpn_cls.0.weight'].shape == (4, 4, 3, 3)
    scores, deltas = head(levels)
    for x, score, delta in zip(levels, scores, deltas):
        x = F.conv2d(
            x, weights['rpn_conv.weight'], weights['rpn_conv.bias'],
            padding=1).clamp(min=0)
        tower = F.conv2d(
            x,
            weights['rpn_cls.0.weight'],
            weights['rpn_cls.0.bias'],
            padding=1).clamp(min=0)
        torch.testing.assert_close(
            score,
            F.conv2d(tower, weights['rpn_cls.2.weight'],
                     weights['rpn_cls.2.bias']))
        torch.testing.assert_close(
            delta,
            F.conv2d(x, weights['rpn_reg.weight'], weights['rpn_reg.bias']))


def test_scores_do_not_shape_the_features(head):
    x = torch.randn(1, 4, 6, 5, requires_grad=True)
    (scores, ), (deltas, ) = head([x])
    scores.sum().backward(retain_graph=True)
    assert x.grad is None and head.rpn_conv.weight.grad is None
    assert all(p.grad.any() for p in head.rpn_cls.parameters())
    deltas.sum().backward()
    assert x.grad.any() and head.rpn_conv.weight.grad.any()


def test_initial_values(head):
    head.init_weights()
    for layer in (head.rpn_conv, head.rpn_cls[0], head.rpn_cls[2]):
        assert (layer.bias == 0).all()
        assert .003 < layer.weight.std().item() < .03
