# Licensed under the Apache License, Version 2.0.
r"""Detic's published weights as the state dict of this package's detectors.

What is alike: regions are classified by :math:`\tau\cos(W x, t_c) + b`, the
text embeddings :math:`t_c` of both are normalised, and :math:`W`
(``cls_score.linear`` of Detectron2, ``fc_cls.linear`` of MMDetection) is our
``projection``. Box codes are (x, y, w, h), flattened RoI features (C, H, W).

What is not in a checkpoint and must be right in the config: :math:`\tau`
(REFERENCE.md, section 2: 25 on OV-COCO, 50 on OV-LVIS; Detectron2's config of
a checkpoint has it as ``NORM_TEMP``), the prompts of the class names, the
order of the image's channels, and on which convolution a ResNet's blocks
stride. A :math:`b` is a weight, and where only one side has it the conversion
stops.

What is reordered: anchors of the RPN, which Detectron2 numbers size by size
and mmdet ratio by ratio, and the input of Swin's patch merging.
"""
import re
from collections import OrderedDict
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Dict, List, Mapping, Optional, Sequence

import torch
from mmdet.models.dense_heads import RPNHead
from mmdet.models.necks import FPN
from torch import Tensor, nn

from .names import CONSTANTS, FROM_CONFIG, RULES, translate


@dataclass
class Conversion:
    """The result, and what happened to everything that is not in it.

    Attributes:
        state_dict (OrderedDict): Of our detector.
        converted (list[str]): Our names of the weights from the checkpoint.
        kept (list[str]): Our names of constants that such a checkpoint has
            not: counters of batch norms, and norms of a backbone's levels
            that the neck does not read. They are as built.
        from_config (list[str]): Names in the checkpoint of what follows from
            the config: class embeddings and counts of the classes' images.
        checked (list[str]): Names in the checkpoint of constants that were
            found to be those of our detector.
        ignored (list[str]): Names in the checkpoint, on request.
        missing (list[str]): Our names, on request. They are not in
            ``state_dict``, so whoever loads it keeps the initial values.
        class_agreement (float, optional): Mean cosine of the checkpoint's
            class embeddings and ours; None where their shapes differ or there
            are none.
    """
    state_dict: 'OrderedDict[str, Tensor]' = field(default_factory=OrderedDict)
    converted: List[str] = field(default_factory=list)
    kept: List[str] = field(default_factory=list)
    from_config: List[str] = field(default_factory=list)
    checked: List[str] = field(default_factory=list)
    ignored: List[str] = field(default_factory=list)
    missing: List[str] = field(default_factory=list)
    class_agreement: Optional[float] = None


def guess_source(names: Sequence[str]) -> str:
    """Tell by its names whose checkpoint it is.

    Args:
        names (Sequence[str]): Of the weights.

    Returns:
        str: ``'detectron2'`` or ``'mmdet'``.

    Raises:
        ValueError: If it is neither or both.
    """
    prefixes = {name.split('.')[0] for name in names}
    found = []
    if prefixes & {'proposal_generator', 'roi_heads'}:
        found.append('detectron2')
    if prefixes & {'rpn_head', 'roi_head'}:
        found.append('mmdet')
    if len(found) != 1:
        raise ValueError(
            'source: expected names of Detectron2 (proposal_generator., '
            'roi_heads.) or of mmdet (rpn_head., roi_head.), got '
            f'{sorted(prefixes)}')
    return found[0]


def convert_state_dict(
    weights: Mapping[str, Tensor],
    model: nn.Module,
    source: Optional[str] = None,
    allow_missing: Sequence[str] = (),
    ignore: Sequence[str] = ()
) -> Conversion:
    """Rename and reorder the weights of a checkpoint of Detic.

    Args:
        weights (Mapping[str, Tensor]): As the checkpoint names them.
        model (nn.Module): Our detector, not wrapped, built from its config.
        source (str, optional): ``'detectron2'`` or ``'mmdet'``; told by the
            names where it is None.
        allow_missing (Sequence[str]): Patterns (``fnmatch``) of our names
            that the checkpoint may lack.
        ignore (Sequence[str]): Patterns of the checkpoint's names to leave
            out.

    Returns:
        Conversion: The state dict, in our order, with a report.

    Raises:
        ValueError: If a name is unknown, one of ours gets no weight or two,
            a shape or a constant differs, or a pattern matches nothing; all
            such names are listed.
    """
    source = source or guess_source(list(weights))
    if source not in RULES:
        raise ValueError(
            f'source: expected one of {sorted(RULES)}, got {source!r}')
    ours = model.state_dict()
    report = Conversion()
    found: Dict[str, Tensor] = {}
    origin: Dict[str, str] = {}
    problems: List[str] = []
    for name, weight in weights.items():
        if _matches(name, ignore):
            report.ignored.append(name)
            continue
        if re.fullmatch(FROM_CONFIG, name):
            report.from_config.append(name)
            continue
        constant = _constant(name, model)
        if constant is not None:
            report.checked.append(name)
            problems += _compare(name, weight, constant)
            continue
        target, change = translate(name, source) or (None, '')
        if target is not None and '{shared}' in target:
            target = target.format(shared=_shared_layer(ours))
        if target not in ours:
            meant = '' if target is None else f' (would be {target})'
            problems.append(f'unknown: {name}{meant}')
        elif target in found:
            problems.append(f'twice: {target}, from {origin[target]} and from '
                            f'{name}')
        else:
            weight = CHANGES[change](weight, model)
            problems += _check(name, weight, target, ours[target])
            found[target] = weight.to(ours[target].dtype)
            origin[target] = name
    unread = _unread_norms(model)
    for name, value in ours.items():
        if name in found:
            report.converted.append(name)
            # `clone`: a view would be saved with all of what it looks at.
            report.state_dict[name] = found[name].clone()
        elif name.endswith(('.num_batches_tracked',
                            '.relative_position_index')) \
                or name.startswith(unread):
            report.kept.append(name)
            report.state_dict[name] = value.clone()
        elif _matches(name, allow_missing):
            report.missing.append(name)
        else:
            problems.append(f'missing: {name} {tuple(value.shape)}')
    for pattern in ignore:
        if not any(fnmatchcase(name, pattern) for name in weights):
            problems.append(f'ignore: no name matches {pattern!r}')
    for pattern in allow_missing:
        if not any(fnmatchcase(name, pattern) for name in ours):
            problems.append(f'allow_missing: no name matches {pattern!r}')
    if problems:
        raise ValueError(f'{len(problems)} problems with this checkpoint of '
                         f'{source}:\n  ' + '\n  '.join(problems))
    report.class_agreement = _class_agreement(weights, report.from_config,
                                              model)
    return report


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _check(name: str, weight: Tensor, target: str, ours: Tensor) -> List[str]:
    """What speaks against this weight."""
    if weight.shape != ours.shape:
        return [
            f'shape: {name} {tuple(weight.shape)}, expected '
            f'{tuple(ours.shape)} of {target}'
        ]
    if target.endswith('.relative_position_index'):
        return _compare(name, weight, ours)
    return []


def _compare(name: str, value: Tensor, expected: Tensor) -> List[str]:
    """Whether a constant is ours."""
    value, expected = value.double().cpu(), expected.double().cpu()
    if value.numel() == expected.numel() and torch.allclose(
            value.flatten(), expected.flatten(), rtol=1e-4, atol=1e-2):
        return []
    return [
        f'constant: {name} is {value.flatten().tolist()[:8]}, expected '
        f'{expected.flatten().tolist()[:8]} of this config'
    ]


def _constant(name: str, model: nn.Module) -> Optional[Tensor]:
    """Our value of a constant of Detectron2, in its order."""
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


CHANGES = {
    '': lambda weight, model: weight,
    'anchors': _reorder_anchors,
    'merge': _reorder_merge,
    'scalar': _as_scalar,
}


def _shared_layer(ours: Mapping[str, Tensor]) -> str:
    """The layer in the RoI head's shared layers, such as ``layer4``."""
    prefix = 'roi_head.shared_head.'
    layers = {
        name[len(prefix):].split('.')[0]
        for name in ours if name.startswith(prefix)
    }
    return layers.pop() if len(layers) == 1 else 'layer4'


def _unread_norms(model: nn.Module) -> tuple:
    """Prefixes of a Swin's output norms below the neck's first level.

    The published backbones do not have them: no weight of theirs reaches a
    prediction.
    """
    reads_less = model.with_neck and isinstance(model.neck, FPN)
    start = model.neck.start_level if reads_less else 0
    return tuple(f'backbone.norm{level}.' for level in range(start))


def _class_agreement(weights: Mapping[str, Tensor], names: Sequence[str],
                     model: nn.Module) -> Optional[float]:
    """Mean cosine of the class embeddings of both, class by class."""
    heads = model.roi_head.bbox_head
    ours = (heads[0] if isinstance(heads, nn.ModuleList) else
            heads).fc_cls.class_embeddings
    for name in names:
        # (D, C + 1): the last column, of zeros, is the background's.
        if name.endswith('.zs_weight') and \
                weights[name].shape == (ours.shape[1], len(ours) + 1):
            theirs = weights[name][:, :-1].t().to(ours)
            return torch.cosine_similarity(theirs, ours).mean().item()
    return None
