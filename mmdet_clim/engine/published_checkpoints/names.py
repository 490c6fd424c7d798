# Licensed under the Apache License, Version 2.0.
"""Names in published checkpoints, and ours for the same weights.

A rule is a pattern of a whole name and what becomes of it.
"""
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

Replacement = str | Callable[[re.Match], str]


class Rule(NamedTuple):
    """What becomes of the weights whose name matches.

    Args:
        pattern (str): Regular expression of the whole name.
        target (str or callable): Our name, as for ``re.sub``; it may hold
            places of :func:`translate`, such as ``{mask}``.
        change (str): ``''``: none; ``'anchors'``: reorder the first
            dimension from Detectron2's order of anchors to ours;
            ``'merge'``: reorder the input of Swin's patch merging;
            ``'scalar'``: one number without a dimension; ``'log'``: the
            logarithm of one number.
    """
    pattern: str
    target: Replacement
    change: str = ''


#: Before the names of box heads, of which a cascade has several: group 1.
CASCADE = r'(?:\.(\d+))?\.'


def in_box_head(form: str) -> Callable[[re.Match], str]:
    """A target in a box head of a cascade, or the only one.

    Args:
        form (str): What follows the head's name; group 1 is the number.
    """

    def target(match: re.Match) -> str:
        number = '' if match[1] is None else f'.{match[1]}'
        return f'roi_head.bbox_head{number}.' + match.expand(form)

    return target


def translate(name: str, rules: list[Rule],
              places: Mapping[str, str]) -> tuple[str, str] | None:
    """Our name of a weight.

    Args:
        name (str): In the checkpoint.
        rules (list[Rule]): Of its family; the first that matches counts.
        places (Mapping[str, str]): What our detector calls its parts:
            ``shared``, the layer of the RoI head's shared layers; ``mask``,
            its mask head; ``caption``, ``tag``, ``bag`` and
            ``distillation``, prefixes of parts of objectives.

    Returns:
        tuple[str, str] or None: Our name and the change that the weight needs
        (see :class:`Rule`); None for a name that no rule knows.
    """
    for rule in rules:
        match = re.fullmatch(rule.pattern, name)
        if match:
            target = rule.target(match) if callable(
                rule.target) else match.expand(rule.target)
            return target.format(**places), rule.change
    return None
