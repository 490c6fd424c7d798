# Licensed under the Apache License, Version 2.0.
"""mmcv's operators that have no kernel for bfloat16, on any device."""
from typing import Any

import torch
from mmcv.ops.deform_conv import DeformConv2dFunction
from mmcv.ops.focal_loss import SigmoidFocalLossFunction
from mmcv.ops.modulated_deform_conv import ModulatedDeformConv2dFunction
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction
from mmcv.ops.nms import NMSop
from mmcv.ops.roi_align import RoIAlignFunction
from torch import Tensor
from torch.autograd import Function

OPERATORS = (DeformConv2dFunction, ModulatedDeformConv2dFunction,
             MultiScaleDeformableAttnFunction, NMSop, RoIAlignFunction,
             SigmoidFocalLossFunction)


def take_bfloat16(operator: type[Function]) -> None:
    """Have an operator compute in float32 what it is given in bfloat16.

    mmdet's detectors then train under autocast to bfloat16, and their region
    extractors put a result next to maps of its dtype, so that it is bfloat16
    again. Other dtypes go to the operator as they are.

    Args:
        operator (Type[Function]): Of one output. It is changed.
    """
    forward, backward = operator.forward, operator.backward

    def run(ctx: Any, *args: Any, **kwargs: Any) -> Tensor:
        found = forward(ctx, *map(_in_float32, args), **kwargs)
        # Of NMS it is the places of boxes.
        if found.is_floating_point() and any(map(_is_bfloat16, args)):
            return found.bfloat16()
        return found

    def run_backward(ctx: Any, grad: Tensor) -> tuple:
        # PyTorch gives each gradient the dtype of its input.
        return backward(ctx, _in_float32(grad))

    operator.forward = staticmethod(run)
    operator.backward = staticmethod(run_backward)


def _is_bfloat16(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.bfloat16


def _in_float32(value: Any) -> Any:
    return value.float() if _is_bfloat16(value) else value
