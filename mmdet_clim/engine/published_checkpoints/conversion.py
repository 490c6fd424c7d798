# Licensed under the Apache License, Version 2.0.
r"""Published weights as the state dict of this package's detectors.

What is alike: regions are classified by :math:`\tau\cos(W x, t_c) + b`, the
text embeddings :math:`t_c` of both are normalised, and :math:`W` is our
``projection``. Box codes are (x, y, w, h), flattened RoI features (C, H, W).

What is not in a checkpoint and must be right in the config: :math:`\tau`,
where it is not learned (REFERENCE.md, section 2: 25 on OV-COCO, 50 on
OV-LVIS; Detectron2's config of a checkpoint has it as ``NORM_TEMP``), the
prompts of the class names, the order of the image's channels, and on which
convolution a ResNet's blocks stride. A :math:`b` is a weight, and where only
one side has it the conversion stops. CLIM's and Detic's C4 models learn a
:math:`b` that their test score leaves out; ours keeps it, which changes no
order of scores.

What changes its form: anchors of an RPN, which the published models number
size by size and mmdet ratio by ratio; the input of Swin's patch merging; a
learned :math:`\tau`, which is our ``log_temperature``; the background's
embedding, a linear layer on the number 1, which is our ``background``; and
batch norms behind convolutions where our detector has none, which are folded
into them.
"""
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import torch
from mmdet.models.necks import FPN
from torch import Tensor, nn

from mmdet_clim.models.backbones.open_clip_backbones import (
    OpenCLIPBackbone,
    sum_of_weights,
)

from .building import OBJECTIVES, ObjectivePart
from .changes import CHANGES, constant_of, folded_norms, joined_background
from .families import Family, reason_unused, recognise
from .names import translate

TOWER = 'backbone.visual.'
TOWER_SUM = 'backbone.tower_sum'


@dataclass
class Conversion:
    """The result, and what happened to everything that is not in it.

    Attributes:
        family (Family): Of the checkpoint.
        state_dict (OrderedDict): Of our detector.
        objectives (dict[str, Tensor]): Weights of the wrapper's objectives.
        converted (list[str]): Our names of the weights from the checkpoint.
        folded (list[str]): Names in the checkpoint of batch norms that are in
            the convolutions before them now.
        kept (list[str]): Our names of constants that such a checkpoint has
            not: counters of batch norms, and norms of a backbone's levels
            that the neck does not read. They are as built.
        unused (dict[str, list[str]]): Reason, to the names in the checkpoint
            that have no place in our detector for it.
        checked (list[str]): Names in the checkpoint of constants that were
            found to be those of our detector.
        ignored (list[str]): Names in the checkpoint, on request.
        missing (list[str]): Our names, on request. They are not in
            ``state_dict``, so whoever loads it keeps the initial values.
    """
    family: Family
    state_dict: 'OrderedDict[str, Tensor]' = field(default_factory=OrderedDict)
    objectives: dict[str, Tensor] = field(default_factory=dict)
    converted: list[str] = field(default_factory=list)
    folded: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    unused: dict[str, list[str]] = field(default_factory=dict)
    checked: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def convert_state_dict(
    weights: Mapping[str, Tensor],
    model: nn.Module,
    objectives: Mapping[str, ObjectivePart] = {},
    allow_missing: Sequence[str] = (),
    ignore: Sequence[str] = ()
) -> Conversion:
    """Rename and reorder the weights of a published detector.

    Args:
        weights (Mapping[str, Tensor]): As the checkpoint names them.
        model (nn.Module): Our detector, not wrapped, built from its config.
        objectives (Mapping[str, ObjectivePart]): What
            :func:`objective_parts` says of the wrapper, where there is one.
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
    report = Conversion(recognise(list(weights)))
    if report.family.rules is None:
        raise ValueError(f'checkpoint: it is {report.family.title}, expected '
                         'one of a detector')
    ours = model.state_dict()
    added = {
        part.prefix + name: value
        for part in objectives.values()
        for name, value in part.weights.items()
    }
    taken = without(weights, ignore, report)
    taken, report.folded = folded_norms(taken, ours)
    taken = joined_background(taken, ours)
    problems: list[str] = []
    for name in list(taken):
        constant = constant_of(name, taken[name], model)
        if constant is not None:
            report.checked.append(name)
            problems += _compare(name, taken.pop(name), constant)
    places = _places(ours, objectives)
    renamed: dict[str, str] = {}
    for name in taken:
        target, change = translate(name, report.family.rules,
                                   places) or ('', '')
        renamed[name] = target
        taken[name] = CHANGES[change](taken[name], model)
    found = assign(taken, renamed, {**ours, **added}, report, problems)
    if TOWER_SUM in ours and any(name.startswith(TOWER) for name in taken):
        found[TOWER_SUM] = _sum_of_tower(taken, model.backbone, problems)
    report.objectives = {
        name: _alone(found[name])
        for name in added if name in found
    }
    fill(report, found, ours, allow_missing, problems, _unread_norms(model))
    finish(report, weights, ours, allow_missing, ignore, problems)
    return report


def without(weights: Mapping[str, Tensor], ignore: Sequence[str],
            report: Conversion) -> dict[str, Tensor]:
    """The weights that no pattern matches; the report has the others."""
    report.ignored = [name for name in weights if _matches(name, ignore)]
    return {
        name: weight
        for name, weight in weights.items() if not _matches(name, ignore)
    }


def assign(taken: Mapping[str, Tensor], renamed: Mapping[str, str],
           expected: Mapping[str, Tensor], report: Conversion,
           problems: list[str]) -> dict[str, Tensor]:
    """Put weights under our names.

    Args:
        taken (Mapping[str, Tensor]): As the checkpoint names them.
        renamed (Mapping[str, str]): To our names; '' for an unknown one.
        expected (Mapping[str, Tensor]): Ours, for their shapes and types.
        report (Conversion): Gets what has no place for a reason.
        problems (list[str]): Gets what speaks against some.

    Returns:
        dict[str, Tensor]: By our names.
    """
    found: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    for name, weight in taken.items():
        target = renamed[name]
        reason = reason_unused(name)
        if target not in expected and reason:
            report.unused.setdefault(reason, []).append(name)
        elif target not in expected:
            meant = f' (would be {target})' if target else ''
            problems.append(f'unknown: {name}{meant}')
        elif target in found:
            problems.append(f'twice: {target}, from {origin[target]} and from '
                            f'{name}')
        else:
            problems += _check(name, weight, target, expected[target])
            found[target] = weight.to(expected[target].dtype)
            origin[target] = name
    return found


def fill(report: Conversion,
         found: Mapping[str, Tensor],
         ours: Mapping[str, Tensor],
         allow_missing: Sequence[str],
         problems: list[str],
         unread: tuple[str, ...] = ()) -> None:
    """Make the state dict, in our order, and list what it lacks.

    Args:
        report (Conversion): Gets it.
        found (Mapping[str, Tensor]): Weights under our names.
        ours (Mapping[str, Tensor]): All of ours.
        allow_missing (Sequence[str]): Patterns of what may be missing.
        problems (list[str]): Gets what is missing and may not.
        unread (tuple[str]): Prefixes of what no prediction reads.
    """
    for name, value in ours.items():
        if name in found:
            report.converted.append(name)
            report.state_dict[name] = _alone(found[name])
        elif name.endswith(('.num_batches_tracked',
                            '.relative_position_index')) \
                or name.startswith(unread):
            report.kept.append(name)
            report.state_dict[name] = value.clone()
        elif _matches(name, allow_missing):
            report.missing.append(name)
        else:
            problems.append(f'missing: {name} {tuple(value.shape)}')


def finish(report: Conversion, weights: Mapping[str, Tensor],
           ours: Mapping[str, Tensor], allow_missing: Sequence[str],
           ignore: Sequence[str], problems: list[str]) -> None:
    """Stop if there are problems, with all of them.

    Raises:
        ValueError: Then.
    """
    for pattern in ignore:
        if not any(fnmatchcase(name, pattern) for name in weights):
            problems.append(f'ignore: no name matches {pattern!r}')
    for pattern in allow_missing:
        if not any(fnmatchcase(name, pattern) for name in ours):
            problems.append(f'allow_missing: no name matches {pattern!r}')
    if problems:
        raise ValueError(f'{len(problems)} problems with this checkpoint of '
                         f'{report.family.name} ({report.family.title}):'
                         f'{_hint(problems)}\n  ' + '\n  '.join(problems))


def _places(ours: Mapping[str, Tensor],
            objectives: Mapping[str, ObjectivePart]) -> dict[str, str]:
    """What our detector calls its parts, for :func:`translate`."""
    in_list = any(name.startswith('roi_head.mask_head.0.') for name in ours)
    return dict(
        shared=_shared_layer(ours),
        mask='mask_head.0' if in_list else 'mask_head',
        **{
            kind: objectives[kind].prefix if kind in objectives else ''
            for kind in OBJECTIVES.values()
        })


def _sum_of_tower(taken: Mapping[str, Tensor], backbone: OpenCLIPBackbone,
                  problems: list[str]) -> Tensor:
    """By which the tower of the file is told from another one.

    The config names the tower; loading the converted weights beside one that
    is not the file's gives a warning.
    """
    visual = {
        name[len(TOWER):]: weight
        for name, weight in taken.items() if name.startswith(TOWER)
    }
    own = backbone.tower.visual.state_dict()
    visual.update({
        name: value
        for name, value in own.items()
        if name not in visual and name.endswith('num_batches_tracked')
    })
    for name in sorted(set(own) ^ set(visual)):
        problems.append(f'image tower: {TOWER}{name} is '
                        f'{"missing" if name in own else "unknown"}')
    for name in sorted(set(own) & set(visual)):
        problems += _check(f'{TOWER}{name}', visual[name],
                           "the config's image tower", own[name])
    if not problems:
        backbone.tower.visual.load_state_dict(visual)
    return sum_of_weights(backbone.tower)


def _hint(problems: Sequence[str]) -> str:
    """What explains many problems at once."""
    if any('.bn.' in text for text in problems) and any(
            text.startswith('missing:') and '.gn.' in text
            for text in problems):
        return (' it has batch norms where the config has group norms '
                "(norm_cfg=dict(type='SyncBN') is what it was trained with)")
    return ''


def _alone(weight: Tensor) -> Tensor:
    """A view would be saved with all of what it looks at."""
    size = weight.numel() * weight.element_size()
    return weight.clone() \
        if weight.untyped_storage().nbytes() > size else weight


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _check(name: str, weight: Tensor, target: str, ours: Tensor) -> list[str]:
    """What speaks against this weight."""
    if weight.shape != ours.shape:
        return [
            f'shape: {name} {tuple(weight.shape)}, expected '
            f'{tuple(ours.shape)} of {target}'
        ]
    if target.endswith('.relative_position_index'):
        return _compare(name, weight, ours)
    return []


def _compare(name: str, value: Tensor, expected: Tensor) -> list[str]:
    """Whether a constant is ours."""
    value, expected = value.double().cpu(), expected.double().cpu()
    if value.numel() == expected.numel() and torch.allclose(
            value.flatten(), expected.flatten(), rtol=1e-4, atol=1e-2):
        return []
    return [
        f'constant: {name} is {value.flatten().tolist()[:8]}, expected '
        f'{expected.flatten().tolist()[:8]} of this config'
    ]


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
