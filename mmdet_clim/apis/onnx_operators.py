# Licensed under the Apache License, Version 2.0.
"""Operators of mmcv as operators of ONNX (opset 16 and later)."""
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from mmcv.ops import nms
from mmcv.ops.roi_align import RoIAlignFunction
from torch import Tensor
from torch.nn.modules.utils import _pair

if TYPE_CHECKING:
    from onnx import ModelProto

# Of onnx.TensorProto.DataType.
INT64, BOOL = 7, 9
# What the sigmoid of no logit falls short of.
ANY_SCORE = -1.0


@contextmanager
def roi_align_of_onnx() -> Iterator[None]:
    """Export mmcv's RoIAlign as ONNX's own, wherever it is called.

    The way that mmcv has for it is of opset 12 and before.
    """
    symbolic = RoIAlignFunction.symbolic
    RoIAlignFunction.symbolic = staticmethod(_roi_align)
    try:
        yield
    finally:
        RoIAlignFunction.symbolic = staticmethod(symbolic)


def _roi_align(g, feats, rois, output_size, spatial_scale: float,
               sampling_ratio: int, pool_mode: str, aligned: bool):
    """The arguments are those of mmcv's function."""
    number = g.op('Squeeze', g.op('Slice', rois, *_constants(g, [0], [1],
                                                             [1])),
                  *_constants(g, [1]))
    boxes = g.op('Slice', rois, *_constants(g, [1], [5], [1]))
    height, width = _pair(output_size)
    return g.op(
        'RoiAlign',
        feats,
        boxes,
        g.op('Cast', number, to_i=INT64),
        coordinate_transformation_mode_s='half_pixel'
        if aligned else 'output_half_pixel',
        mode_s=pool_mode,
        output_height_i=height,
        output_width_i=width,
        sampling_ratio_i=sampling_ratio,
        spatial_scale_f=spatial_scale)


def replace_boolean_where(model: 'ModelProto') -> None:
    """Write ``Where`` of booleans as ``And``, ``Or`` and ``Not``.

    onnxruntime (1.32) has no kernel of it on CPUs. mmdet's fusion of words and
    pixels fills a mask of booleans.

    Args:
        model (onnx.ModelProto): It is changed.
    """
    from onnx import helper, shape_inference
    inferred = shape_inference.infer_shapes(model).graph
    kinds = {
        value.name: value.type.tensor_type.elem_type
        for value in (*inferred.value_info, *inferred.output)
    }
    nodes = []
    for node in model.graph.node:
        result = node.output[0]
        if node.op_type != 'Where' or kinds.get(result) != BOOL:
            nodes.append(node)
            continue
        condition, one, other = node.input
        steps = (('Not', [condition], 'not'), ('And', [condition, one], 'one'),
                 ('And', [f'{result}/not', other], 'other'))
        nodes += [
            helper.make_node(kind, given, [f'{result}/{step}'])
            for kind, given, step in steps
        ]
        nodes.append(
            helper.make_node('Or', [f'{result}/one', f'{result}/other'],
                             [result]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


class NMSOperator(torch.autograd.Function):
    """NMS of each class apart, exported as ONNX's ``NonMaxSuppression``.

    Shape:
        - boxes (N, 4) absolute xyxy; scores (C, N); the kept ones (M, 2):
          class and box, of each class best first.
    """

    @staticmethod
    def forward(ctx, boxes: Tensor, scores: Tensor, iou: float, score: float,
                most: int) -> Tensor:
        """What PyTorch computes."""
        kept = []
        for number, of_class in enumerate(scores):
            index = (of_class > score).nonzero()[:, 0]
            if len(index):
                best = nms(boxes[index], of_class[index], iou)[1][:most]
                index = index[best]
            kept.append(
                torch.stack([torch.full_like(index, number), index], 1))
        return torch.cat(kept)

    @staticmethod
    def symbolic(g, boxes, scores, iou: float, score: float, most: int):
        """The same as nodes of an ONNX graph."""
        first = g.op('Constant', value_t=torch.tensor([0]))
        selected = g.op(
            'NonMaxSuppression', g.op('Unsqueeze', boxes, first),
            g.op('Unsqueeze', scores, first),
            g.op('Constant', value_t=torch.tensor([most])),
            g.op('Constant', value_t=torch.tensor([iou], dtype=torch.float)),
            g.op('Constant', value_t=torch.tensor([score], dtype=torch.float)))
        # Image, class, box.
        return g.op('Slice', selected, *_constants(g, [1], [3], [1]))


def _constants(g, *values: list) -> tuple:
    return tuple(
        g.op('Constant', value_t=torch.tensor(value)) for value in values)
