# Licensed under the Apache License, Version 2.0.
"""Weights that have another form in our detectors."""
import re
from collections.abc import Mapping

import torch
from mmdet.models.dense_heads import RPNHead
from torch import Tensor, nn

from .detectron2 import CONSTANTS

# Of torch's and mmcv's batch norms.
EPS = 1e-5
BACKGROUND = 'roi_head.bbox_head.bg_embedding'
NORM_PARTS = ('weight', 'bias', 'running_mean', 'running_var')


def constant_of(name: str, weight: Tensor, model: nn.Module) -> Tensor | None:
    """Our value of a constant of a published model, in its order.

    Args:
        name (str): In the checkpoint.
        weight (Tensor): Of that name.
        model (nn.Module): Our detector.

    Returns:
        Tensor or None: None if it is none.
    """
    if name == BACKGROUND:
        # Detic's and BARON's: a class that no region is.
        return torch.zeros_like(weight)
    for pattern, kind in CONSTANTS:
        match = re.fullmatch(pattern, name)
        if match and kind == 'pixels':
            # Both are in the order of the channels that the backbone sees.
            preprocessor = model.data_preprocessor
            return preprocessor.mean if match[1] == 'mean' \
                else preprocessor.std
        if match and isinstance(model.rpn_head, RPNHead):
            anchors = model.rpn_head.prior_generator.base_anchors[0]
            return anchors[_anchor_order(model).argsort()]
    return None


def joined_background(weights: Mapping[str, Tensor],
                      ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The background's embedding, which is a linear layer on the number 1.

    Args:
        weights (Mapping[str, Tensor]): ``bg_embedding.weight`` (D, 1) and
            ``bg_embedding.bias`` (D,) among them, or not.
        ours (Mapping[str, Tensor]): Of our detector.

    Returns:
        dict[str, Tensor]: With ``weight[:, 0] + bias`` in their place if our
        detector has a background.

    Raises:
        ValueError: If only one of the two is there.
    """
    names = [f'{BACKGROUND}.weight', f'{BACKGROUND}.bias']
    given = [name for name in names if name in weights]
    if 'roi_head.bbox_head.fc_cls.background' not in ours or not given:
        return dict(weights)
    if len(given) == 1:
        raise ValueError(f'checkpoint: expected {names}, got {given} alone')
    weights = dict(weights)
    weight, bias = (weights.pop(name) for name in names)
    weights['roi_head.bbox_head.background'] = weight.flatten() + bias
    return weights


def folded_norms(
        weights: Mapping[str, Tensor],
        ours: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    r"""Batch norms behind convolutions of which ours have a bias instead.

    In evaluation :math:`\gamma (w * x - \mu) / \sqrt{v + \epsilon} + \beta`
    is a convolution of weight :math:`w\gamma / \sqrt{v + \epsilon}` and bias
    :math:`\beta - \mu\gamma / \sqrt{v + \epsilon}`.

    Args:
        weights (Mapping[str, Tensor]): Of layers ``X.conv`` and ``X.bn``
            among others, named alike on both sides.
        ours (Mapping[str, Tensor]): Of our detector.

    Returns:
        tuple[dict[str, Tensor], list[str]]: The weights with the norms
        folded, and the names of the norms.
    """
    weights, folded = dict(weights), []
    for name in list(weights):
        layer, _, last = name.rpartition('.conv.')
        if last != 'weight' or not layer:
            continue
        norm = [f'{layer}.bn.{part}' for part in NORM_PARTS]
        bias = f'{layer}.conv.bias'
        has_norm = any(
            own.startswith(f'{layer}.') and 'conv' not in own[len(layer):]
            for own in ours)
        if has_norm or bias not in ours or bias in weights \
                or not all(part in weights for part in norm):
            continue
        gamma, beta, mean, var = (weights[part] for part in norm)
        scale = gamma / (var + EPS).sqrt()
        weights[name] = weights[name] * scale[:, None, None, None]
        weights[bias] = beta - mean * scale
        for part in [*norm, f'{layer}.bn.num_batches_tracked']:
            if weights.pop(part, None) is not None:
                folded.append(part)
    return weights, folded


def _anchor_order(model: nn.Module) -> Tensor:
    """Where Detectron2 has each of our anchors: (A,)."""
    generator = model.rpn_head.prior_generator
    sizes, ratios = len(generator.scales), len(generator.ratios)
    order = torch.arange(sizes * ratios).view(sizes, ratios)
    return (order.t() if generator.scale_major else order).flatten()


def _reorder_anchors(weight: Tensor, model: nn.Module) -> Tensor:
    order = _anchor_order(model)
    if len(weight) % len(order):
        return weight
    return weight.unflatten(0, (len(order), -1))[order].flatten(0, 1)


def _reorder_merge(weight: Tensor, model: nn.Module) -> Tensor:
    """Inputs (column, row, channel) to (channel, row, column)."""
    if weight.shape[-1] % 4:
        return weight
    return weight.unflatten(-1, (2, 2, -1)).transpose(-1, -3).flatten(-3)


def _as_scalar(weight: Tensor, model: nn.Module) -> Tensor:
    return weight.reshape(()) if weight.numel() == 1 else weight


def _logarithm(weight: Tensor, model: nn.Module) -> Tensor:
    return _as_scalar(weight, model).log()


CHANGES = {
    '': lambda weight, model: weight,
    'anchors': _reorder_anchors,
    'log': _logarithm,
    'merge': _reorder_merge,
    'scalar': _as_scalar,
}
