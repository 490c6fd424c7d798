# Licensed under the Apache License, Version 2.0.
"""An RPN head with norms, as F-VLM's."""
import pytest
import torch
from mmdet.utils import register_all_modules
from mmengine.registry import MODELS
from torch.nn import functional as F

import mmdet_clim  # noqa: F401


def head(**changes):
    register_all_modules()
    cfg = dict(
        type='mmdet_clim.NormRPNHead',
        in_channels=8,
        feat_channels=6,
        num_convs=2,
        norm_cfg=dict(type='BN'),
        anchor_generator=dict(
            type='mmdet.AnchorGenerator',
            scales=[8],
            ratios=[.5, 1., 2.],
            strides=[4]))
    return MODELS.build(dict(cfg, **changes))


def test_names_and_shapes_are_the_published_ones():
    own = head(norm_cfg=dict(type='SyncBN', requires_grad=True))
    shapes = {
        name: tuple(value.shape)
        for name, value in own.state_dict().items() if 'rpn_conv' in name
    }
    norm = dict.fromkeys(('weight', 'bias', 'running_mean', 'running_var'),
                         (6, ))
    norm['num_batches_tracked'] = ()
    assert shapes == {
        'rpn_conv.0.conv.weight': (6, 8, 3, 3),
        'rpn_conv.1.conv.weight': (6, 6, 3, 3),
        **{
            f'rpn_conv.{n}.bn.{part}': shape
            for n in (0, 1)
            for part, shape in norm.items()
        }
    }
    assert own.rpn_cls.weight.shape == (3, 6, 1, 1)
    assert own.rpn_reg.weight.shape == (12, 6, 1, 1)


def test_it_is_convolution_norm_and_relu():
    torch.manual_seed(0)
    own = head().eval()
    own.init_weights()
    for layer in own.rpn_conv:
        layer.bn.running_mean.uniform_(-1, 1)
        layer.bn.running_var.uniform_(.5, 2)
    x = torch.randn(2, 8, 5, 7)
    expected = x
    for layer in own.rpn_conv:
        bn = layer.bn
        expected = F.conv2d(expected, layer.conv.weight, padding=1)
        expected = F.batch_norm(expected, bn.running_mean, bn.running_var,
                                bn.weight, bn.bias).relu()
    (scores, ), (deltas, ) = own([x])
    torch.testing.assert_close(scores, own.rpn_cls(expected))
    torch.testing.assert_close(deltas, own.rpn_reg(expected))


def test_a_single_convolution_is_refused():
    with pytest.raises(ValueError, match='at least 2, got 1'):
        head(num_convs=1)
