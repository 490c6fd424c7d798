# Licensed under the Apache License, Version 2.0.
"""Operators of mmcv, each compared with its plain formula."""
import math
from collections.abc import Callable, Sequence

import mmcv
import torch
from mmcv import ops
from torch import Tensor

TOLERANCE = 1e-6


def corner_mean(maps: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Bilinear interpolation between pixel centres at whole coordinates.

    Args:
        maps (Tensor): (C, H, W). Zero outside.
        y (Tensor): Rows, of any shape S.
        x (Tensor): Columns, of the same shape.

    Returns:
        Tensor: (C, *S).
    """
    height, width = maps.shape[1:]
    total = 0
    for row in (y.floor(), y.floor() + 1):
        for column in (x.floor(), x.floor() + 1):
            inside = ((row >= 0) & (row < height) & (column >= 0) &
                      (column < width))
            weight = (1 - (y - row).abs()) * (1 - (x - column).abs()) * inside
            total = total + weight * maps[:,
                                          row.clamp(0, height - 1).long(),
                                          column.clamp(0, width - 1).long()]
    return total


def plain_nms(boxes: Tensor, scores: Tensor, iou_threshold: float,
              offset: int) -> list[int]:
    """Indices of the kept boxes (x1, y1, x2, y2), best score first."""
    kept = []
    for index in scores.argsort(descending=True).tolist():
        for other in kept:
            low = torch.maximum(boxes[index, :2], boxes[other, :2])
            high = torch.minimum(boxes[index, 2:], boxes[other, 2:])
            common = (high - low + offset).clamp(min=0).prod()
            areas = [(boxes[i, 2:] - boxes[i, :2] + offset).prod()
                     for i in (index, other)]
            if common / (sum(areas) - common) > iou_threshold:
                break
        else:
            kept.append(index)
    return kept


def plain_roi_align(maps: Tensor, rois: Tensor, size: int, scale: float,
                    ratio: int, aligned: bool) -> Tensor:
    """Mean of bilinear samples in each of ``size`` x ``size`` bins.

    Args:
        maps (Tensor): (N, C, H, W).
        rois (Tensor): (R, 5): index of the image, then x1, y1, x2, y2 in
            pixels of the image.
        size (int): Bins per side.
        scale (float): Pixels of the maps per pixel of the image.
        ratio (int): Samples per side of a bin; 0: one per pixel of the maps.
        aligned (bool): Whether the centre of the first pixel is at 0.5, and
            not at 0.

    Returns:
        Tensor: (R, C, size, size).
    """
    height, width = maps.shape[2:]
    found = []
    for roi in rois:
        x1, y1, x2, y2 = (roi[1:] * scale - (0.5 if aligned else 0)).tolist()
        w, h = x2 - x1, y2 - y1
        if not aligned:
            w, h = max(w, 1), max(h, 1)
        ny, nx = (ratio or max(1, math.ceil(side / size)) for side in (h, w))
        rows = torch.arange(size * ny, dtype=maps.dtype, device=maps.device)
        columns = torch.arange(size * nx, dtype=maps.dtype, device=maps.device)
        y = y1 + (rows + 0.5) * h / (size * ny)
        x = x1 + (columns + 0.5) * w / (size * nx)
        y, x = torch.meshgrid(y, x, indexing='ij')
        near = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
        samples = near * corner_mean(maps[int(roi[0])], y.clamp(0, height - 1),
                                     x.clamp(0, width - 1))
        found.append(samples.view(-1, size, ny, size, nx).mean((2, 4)))
    return torch.stack(found)


def plain_deform_conv(maps: Tensor, offset: Tensor, mask: Tensor,
                      weight: Tensor, stride: int, padding: int, dilation: int,
                      groups: int, deform_groups: int) -> Tensor:
    """A convolution whose taps are displaced, and weighted by a mask.

    Args:
        maps (Tensor): (N, C, H, W).
        offset (Tensor): (N, deform_groups * k * k * 2, H', W'): (y, x) of
            each tap in pixels.
        mask (Tensor): (N, deform_groups * k * k, H', W').
        weight (Tensor): (C', C / groups, k, k).
        stride (int): Of the output's pixels.
        padding (int): Zeros at each side.
        dilation (int): Between taps.
        groups (int): Of the channels for the weights.
        deform_groups (int): Of the channels for the offsets and masks.

    Returns:
        Tensor: (N, C', H', W').
    """
    count, channels = maps.shape[:2]
    kernel = weight.shape[-1]
    height, width = offset.shape[2:]
    offset = offset.view(count, deform_groups, kernel, kernel, 2, height,
                         width)
    mask = mask.view(count, deform_groups, kernel, kernel, height, width)
    row, column = torch.meshgrid(
        *(stride * torch.arange(n, device=maps.device) - padding
          for n in (height, width)),
        indexing='ij')
    per_deform_group = channels // deform_groups
    taps = maps.new_zeros(count, channels, kernel, kernel, height, width)
    for n in range(count):
        for group in range(deform_groups):
            part = slice(group * per_deform_group,
                         (group + 1) * per_deform_group)
            for i in range(kernel):
                for j in range(kernel):
                    dy, dx = offset[n, group, i, j]
                    taps[n, part, i, j] = mask[n, group, i, j] * corner_mean(
                        maps[n, part], row + i * dilation + dy,
                        column + j * dilation + dx)
    taps = taps.view(count, groups, channels // groups, kernel, kernel, height,
                     width)
    weight = weight.view(groups, -1, *weight.shape[1:])
    return torch.einsum('ngcijhw,gocij->ngohw', taps, weight).flatten(1, 2)


def plain_attention(values: Tensor, shapes: Tensor, locations: Tensor,
                    weights: Tensor) -> Tensor:
    """Weighted sums of bilinear samples of several maps.

    Args:
        values (Tensor): (N, sum of H * W, heads, D), one map after another.
        shapes (Tensor): (L, 2): H and W of each map.
        locations (Tensor): (N, Q, heads, L, P, 2): (x, y), 0 to 1 from edge
            to edge of a map.
        weights (Tensor): (N, Q, heads, L, P).

    Returns:
        Tensor: (N, Q, heads * D).
    """
    images = []
    for n in range(len(values)):
        heads = []
        for head in range(values.shape[2]):
            total, start = 0, 0
            for level, (h, w) in enumerate(shapes.tolist()):
                maps = values[n, start:start + h * w, head].T.view(-1, h, w)
                start += h * w
                x, y = locations[n, :, head, level].unbind(-1)
                samples = corner_mean(maps, y * h - 0.5, x * w - 0.5)
                total = total + (samples * weights[n, :, head, level]).sum(-1)
            heads.append(total.T)
        images.append(torch.cat(heads, -1))
    return torch.stack(images)


def compare(name: str, operator: Callable, formula: Callable,
            inputs: Sequence[Tensor]) -> None:
    """Stop where outputs or gradients of the inputs differ.

    Args:
        name (str): Of the operator, for the message.
        operator (Callable): What mmcv computes of ``inputs``.
        formula (Callable): What it should compute.
        inputs (Sequence[Tensor]): Of floating-point numbers.
    """
    results = []
    for function in (operator, formula):
        leaves = [x.detach().clone().requires_grad_() for x in inputs]
        output = function(*leaves)
        # Not all of the output counts alike.
        scale = torch.linspace(1, 2, output.numel()).to(output)
        (output.flatten() * scale).sum().backward()
        results.append([output, *(leaf.grad for leaf in leaves)])
    for what, got, expected in zip(
        ('output', *(f'gradient of input {i}' for i in range(len(inputs)))),
            *results):
        if got.shape != expected.shape or not torch.allclose(
                got, expected, rtol=TOLERANCE, atol=TOLERANCE):
            raise SystemExit(
                f'mmcv {mmcv.__version__}, {name} on {got.device}: the '
                f'{what} differs from the formula, expected '
                f'{expected.flatten()[:4].tolist()}..., got '
                f'{got.flatten()[:4].tolist()}...')


def check_nms(device: str) -> None:
    """Compare the kept boxes."""
    corners = torch.rand(60, 2) * 20
    boxes = torch.cat([corners, corners + 1 + torch.rand(60, 2) * 12], 1)
    scores = torch.rand(60)
    for threshold in (0.3, 0.7):
        for offset in (0, 1):
            kept = ops.nms(
                boxes.to(device), scores.to(device), threshold,
                offset=offset)[1].tolist()
            expected = plain_nms(boxes, scores, threshold, offset)
            if kept != expected:
                raise SystemExit(
                    f'mmcv {mmcv.__version__}, nms on {device}: expected the '
                    f'boxes {expected}, got {kept}')


def check_roi_align(device: str) -> None:
    """Compare RoIs inside, across the edge and smaller than a pixel."""
    maps = torch.rand(2, 3, 8, 11, dtype=torch.double, device=device)
    rois = maps.new_tensor([[0, 3.2, 1.1, 17.9, 14.3], [1, -6, -5, 9, 40],
                            [1, 7.1, 6.2, 7.6, 6.5]])
    for aligned in (True, False):
        for ratio in (0, 2):
            compare(
                f'roi_align, aligned={aligned}, sampling_ratio={ratio}',
                lambda x, a=aligned, r=ratio: ops.roi_align(
                    x, rois, (3, 3), 0.5, r, 'avg', a),
                lambda x, a=aligned, r=ratio: plain_roi_align(
                    x, rois, 3, 0.5, r, a), [maps])


def check_deform_conv(device: str) -> None:
    """Compare both deformable convolutions, with groups and without."""
    for groups, deform_groups, stride in ((1, 1, 1), (2, 2, 2)):
        maps = torch.rand(2, 4, 7, 6, dtype=torch.double, device=device)
        height, width = 6 // stride + 1, 5 // stride + 1
        offset = 3 * torch.randn(2, deform_groups * 18, height, width).to(maps)
        mask = torch.rand(2, deform_groups * 9, height, width).to(maps)
        weight = torch.randn(6, 4 // groups, 3, 3).to(maps)
        # stride, padding, dilation, groups, deform_groups
        settings = (stride, 1, 1, groups, deform_groups)
        ones = torch.ones_like(mask)
        compare(
            f'modulated_deform_conv2d, groups={groups}',
            lambda x, o, m, w, s=settings: ops.modulated_deform_conv2d(
                x, o, m, w, None, *s),
            lambda *tensors, s=settings: plain_deform_conv(*tensors, *s),
            [maps, offset, mask, weight])
        compare(
            f'deform_conv2d, groups={groups}',
            lambda x, o, w, s=settings: ops.deform_conv2d(x, o, w, *s),
            lambda x, o, w, m=ones, s=settings: plain_deform_conv(
                x, o, m, w, *s), [maps, offset, weight])


def check_attention(device: str) -> None:
    """Compare what mmcv's module calls on this device."""
    shapes = torch.tensor([[5, 4], [3, 2]], device=device)
    starts = torch.tensor([0, 20], device=device)
    values = torch.rand(2, 26, 2, 4, dtype=torch.double, device=device)
    locations = torch.rand(2, 3, 2, 2, 4, 2).to(values) * 1.4 - 0.2
    weights = torch.rand(2, 3, 2, 2, 4).to(values)
    module = ops.multi_scale_deform_attn
    if device == 'cpu':
        # The only one that the CPU has; nothing of it is compiled.
        def operator(v, x, w):
            return module.multi_scale_deformable_attn_pytorch(v, shapes, x, w)
    else:

        def operator(v, x, w):
            return module.MultiScaleDeformableAttnFunction.apply(
                v, shapes, starts, x, w, 2)

    compare('multi-scale deformable attention', operator,
            lambda v, x, w: plain_attention(v, shapes, x, w),
            [values, locations, weights])


CHECKS = (check_nms, check_roi_align, check_deform_conv, check_attention)
