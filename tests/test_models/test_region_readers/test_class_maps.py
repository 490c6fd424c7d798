# Licensed under the Apache License, Version 2.0.
"""A head's class embeddings without its other layers, and with them."""
import copy

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mmdet_clim.models.dense_heads import ZeroShotHead
from mmdet_clim.models.region_readers.other_maps import (
    class_embedding_maps,
    idle_convolutions,
)

CLASSES = ('cat', 'dog', 'cow', 'bus', 'cup')
# Type of a head, its other arguments, sides of its maps, what regresses, and
# what classifies.
HEADS = [
    ('FCOSHead', dict(norm_cfg=None, stacked_convs=2), (9, 5, 3, 2, 1),
     {'reg_convs.0.conv', 'reg_convs.1.conv', 'conv_reg', 'conv_centerness'}),
    ('ATSSHead',
     dict(
         stacked_convs=1,
         feat_channels=32,
         anchor_generator=dict(
             type='mmdet.AnchorGenerator',
             ratios=[1.],
             octave_base_scale=8,
             scales_per_octave=1,
             strides=[8, 16, 32, 64, 128])), (9, 5, 3, 2, 1),
     {'reg_convs.0.conv', 'atss_reg', 'atss_centerness'}),
    ('YOLOXHead', dict(stacked_convs=1, feat_channels=8), (9, 5, 3), {
        f'multi_level_{part}'
        for level in range(3)
        for part in (f'reg_convs.{level}.0.conv', f'conv_reg.{level}',
                     f'conv_obj.{level}')
    }),
    # Its boxes say where its classes are read: only what refines them after
    # that is idle.
    ('VFNetHead', dict(stacked_convs=1, feat_channels=32), (9, 5, 3, 2, 1),
     {'vfnet_reg_refine'}),
    # A deformable convolution, of mmcv, takes no part of a map as it lies, and
    # no map of one position, so that nothing is left out.
    ('DDODHead', dict(stacked_convs=1,
                      feat_channels=32), (9, 7, 5, 4, 3), set()),
]


@pytest.fixture
def build(text_encoder_cfg):

    def build(head_type, arguments):
        torch.manual_seed(0)
        head = ZeroShotHead(
            copy.deepcopy(
                dict(
                    dict(feat_channels=8),
                    type=f'mmdet.{head_type}',
                    in_channels=8,
                    **arguments)), CLASSES,
            dict(text_encoder=text_encoder_cfg, templates=('{}', )))
        head.init_weights()
        return head.eval()

    return build


@pytest.mark.parametrize('head_type, arguments, sides, regresses', HEADS)
def test_idle_layers_see_one_position(build, head_type, arguments, sides,
                                      regresses):
    arguments = dict(arguments)
    head = build(head_type, arguments)
    maps = [torch.randn(2, 8, side, side + 1) for side in sides]
    before = copy.deepcopy(head.state_dict())
    idle = idle_convolutions(head, maps)
    assert set(idle) == regresses
    for key, value in head.state_dict().items():
        assert torch.equal(value, before[key]), key
    with FlopCounterMode(display=False) as whole:
        expected = class_embedding_maps(head, maps)
    with FlopCounterMode(display=False) as short:
        found = class_embedding_maps(head, maps, idle)
    assert all(map(torch.equal, found, expected))
    assert [m.shape[-2:] for m in found] == [m.shape[-2:] for m in maps]
    if len(regresses) > 1:
        assert short.get_total_flops() < .7 * whole.get_total_flops()
    # Its own forward is as it was.
    boxes = head(tuple(maps))[1]
    assert all(box.shape[-2:] == m.shape[-2:] for box, m in zip(boxes, maps))


def test_a_batch_norm_that_follows_sees_the_whole_map(build):
    head = build('YOLOXHead', dict(stacked_convs=1)).train()
    maps = [torch.randn(2, 8, side, side) for side in (4, 2, 1)]
    class_embedding_maps(head, maps, ['multi_level_reg_convs.0.0.conv'])
    norm = head.multi_level_reg_convs[0][0].bn
    seen = head.multi_level_reg_convs[0][0].conv(maps[0])
    torch.testing.assert_close(norm.running_mean,
                               norm.momentum * seen.mean((0, 2, 3)))


def test_classes_that_follow_from_boxes_without_gradient(build):
    """No gradient says so, and nothing is left out."""
    head = build('FCOSHead', dict(norm_cfg=None, stacked_convs=1))
    head.cls_convs[0].register_forward_hook(
        lambda module, args, output: output + head.reg_convs[0]
        (args[0]).detach().mean())
    maps = [torch.randn(1, 8, side, side) for side in (4, 3, 2, 2, 1)]
    assert idle_convolutions(head, maps) == []
    # Also where they start at zero, as offsets do.
    torch.nn.init.zeros_(head.reg_convs[0].conv.weight)
    torch.nn.init.zeros_(head.reg_convs[0].conv.bias)
    assert idle_convolutions(head, maps) == []


def test_a_frozen_head(build):
    head = build('FCOSHead', dict(norm_cfg=None, stacked_convs=1))
    maps = [torch.randn(1, 8, side, side) for side in (4, 3, 2, 2, 1)]
    head.requires_grad_(False)
    assert idle_convolutions(head, maps) == []
    head.conv_reg.requires_grad_(True)
    assert idle_convolutions(head, maps) == []
