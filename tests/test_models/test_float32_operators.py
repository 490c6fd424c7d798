# Licensed under the Apache License, Version 2.0.
"""mmcv's operators given bfloat16."""
import torch
from mmcv.ops import RoIAlign, nms
from mmcv.ops.modulated_deform_conv import modulated_deform_conv2d
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor

import mmdet_clim.models  # noqa: F401  (it changes the operators)


def test_roi_align_rounds_what_float32_gives():
    torch.manual_seed(0)
    maps = torch.rand(2, 3, 8, 8).bfloat16().requires_grad_()
    exact = maps.detach().float().requires_grad_()
    rois = torch.tensor([[0., 0., 0., 12., 12.], [1., 4., 4., 30., 20.]])
    pool = RoIAlign(2, 0.25, 0)

    found = pool(maps, rois.bfloat16())
    expected = pool(exact, rois)

    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected.bfloat16())
    weights = torch.rand_like(found)
    (found * weights).sum().backward()
    (expected * weights.float()).sum().backward()
    assert maps.grad.dtype == torch.bfloat16
    assert torch.equal(maps.grad, exact.grad.bfloat16())


def test_other_dtypes_are_left_alone():
    maps = torch.rand(1, 2, 4, 4, dtype=torch.double, requires_grad=True)
    rois = torch.tensor([[0., 0., 0., 12., 12.]], dtype=torch.double)
    found = RoIAlign(2, 0.25, 0)(maps, rois)
    assert found.dtype == torch.double
    found.sum().backward()
    assert maps.grad.dtype == torch.double


def test_extractor_of_several_levels_under_autocast():
    """As in mmdet's own loss of a detector with an FPN."""
    extractor = SingleRoIExtractor(
        dict(type='RoIAlign', output_size=2, sampling_ratio=0), 3, [4, 8])
    levels = [torch.rand(1, 3, s, s).bfloat16() for s in (64, 32)]
    rois = torch.tensor([[0., 0., 0., 20., 20.], [0., 0., 0., 240., 240.]])
    with torch.autocast('cpu', torch.bfloat16):
        found = extractor(levels, rois)
    expected = extractor([level.float() for level in levels], rois)
    assert torch.equal(found, expected.bfloat16())


def test_deformable_convolution():
    """Without an offset and with a mask of ones it is a convolution."""
    torch.manual_seed(0)
    x, weight = (
        torch.rand(shape).bfloat16() for shape in ((1, 2, 6, 6), (4, 2, 3, 3)))
    weight.requires_grad_()
    found = modulated_deform_conv2d(x,
                                    torch.zeros(1, 18, 6, 6).bfloat16(),
                                    torch.ones(1, 9, 6, 6).bfloat16(), weight,
                                    torch.zeros(4).bfloat16(), 1, 1, 1, 1, 1)
    exact = weight.detach().float().requires_grad_()
    expected = torch.nn.functional.conv2d(x.float(), exact, padding=1)
    torch.testing.assert_close(found, expected.bfloat16())
    found.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(weight.grad, exact.grad.bfloat16())


def test_nms_takes_boxes_of_bfloat16():
    boxes = torch.tensor([[0., 0., 8., 8.], [0., 0., 8., 7.], [8., 8., 9.,
                                                               9.]])
    scores = torch.tensor([.5, .75, .25])
    found, kept = nms(boxes.bfloat16(), scores.bfloat16(), 0.5)
    assert kept.tolist() == [1, 2]
    assert torch.equal(found.float(),
                       torch.cat([boxes, scores[:, None]], 1)[[1, 2]])
