# Licensed under the Apache License, Version 2.0.
"""The published checkpoints, told apart by the names in them."""
import re
from collections.abc import Sequence
from typing import NamedTuple

from . import detectron2, mmdet_forms
from .names import Rule

# Which prompts the class vectors of a file are (REFERENCE.md, section 2).
VILD = "the 63 prompt templates of ViLD, averaged (templates='vild')"
RAW_NAME = ('"a " and the name as the data set has it ("a alarm_clock"; '
            "templates=('a {raw}', ))")


class Family(NamedTuple):
    """Checkpoints of one form.

    Args:
        name (str): By which messages and ``meta['converted_from']`` call it.
        title (str): What it is.
        sign (str): Regular expression; one that begins a name in every such
            file, and no name in one of another family.
        rules (list[Rule]): From its names to ours. None: of a CLIP, not of a
            detector.
        prompts (str): Of its class vectors.
    """
    name: str
    title: str
    sign: str
    rules: list[Rule] | None
    prompts: str = ''


_OVDET_CLASS = r'roi_head\.bbox_head\.fc_cls\.(?:weight|bias)$'
FAMILIES = (
    Family('detectron2', "Detic's own, of Detectron2",
           r'(?:proposal_generator|roi_heads)\.', detectron2.RULES,
           f'{RAW_NAME}, by CLIP ViT-B/32'),
    Family('mmdet', "MMDetection's Detic (CenterNet2), or CLIM on it",
           r'roi_head\.bbox_head(?:\.\d+)?\.fc_cls\.linear\.',
           mmdet_forms.DETIC, f'{RAW_NAME}, by CLIP ViT-B/32'),
    Family('detic_c4', 'Detic R50-C4, or CLIM on it', _OVDET_CLASS,
           mmdet_forms.OVDET, f'{VILD}, by CLIP ViT-B/32'),
    Family(
        'baron', 'BARON', r'roi_head\.baron_', mmdet_forms.OVDET,
        'not in the file. They are of the stream behind the last block of '
        "CLIP ViT-B/32's text encoder at the token of the end, before its "
        'last norm and projection; on OV-COCO ' + VILD),
    Family('fvit', 'F-ViT or F-VLM', r'backbone\.visual\.', mmdet_forms.OVDET,
           f'{VILD}, by the CLIP of the backbone'),
    Family('eva_clip', "an EVA-CLIP under EVA's own names",
           r'visual\.blocks\.', None),
    Family('clip', "a CLIP under open_clip's names",
           r'visual\.(?:conv1|trunk)\.', None),
)
# Heads of these have the sign of Detic's C4 too.
_MORE_THAN_C4 = ('baron', 'fvit')


def recognise(names: Sequence[str]) -> Family:
    """Tell the family of a checkpoint.

    Args:
        names (Sequence[str]): Of its weights.

    Returns:
        Family: The only one whose sign is there.

    Raises:
        ValueError: If there is none, or there are several.
    """
    found = [
        family for family in FAMILIES if any(
            re.match(family.sign, name) for name in names)
    ]
    if any(family.name in _MORE_THAN_C4 for family in found):
        found = [family for family in found if family.name != 'detic_c4']
    if len(found) != 1:
        known = '; '.join(f'{f.name} ({f.title})' for f in found or FAMILIES)
        raise ValueError(
            'checkpoint: expected the weight names of one published family, '
            f'got those of {"several" if found else "none"}: {known}. '
            f'The file has {len(names)} weights: {list(names)[:3]} ...')
    return found[0]


#: Why a weight of a file may have no place in our model: pattern and reason.
UNUSED = (
    (r'backbone\.visual\..+', 'the frozen image tower, which the config names '
     '(model.backbone.pretrained)'),
    (r'roi_head\.clip\..+', 'a whole CLIP, which the config names'),
    (r'roi_heads?\.(?:box_predictor|bbox_head)\.(?:\d+\.)?(?:(?:cls_score|'
     r'fc_cls)\.zs_weight|cls_embeddings)|roi_head\.detic_tags\.'
     r'tag_embeddings', 'class vectors, which follow from the config; '
     '--class-vectors keeps them'),
    (r'roi_heads?\.(?:box_predictor|bbox_head)\.(?:\d+\.)?freq_weight',
     "counts of the classes' images, which follow from the config"),
    (r'roi_head\.bbox_head\.is_base', 'which classes are base, which follows '
     'from the config'),
    (r'roi_head\.detic_\w+\.bce_bias', 'the bias of an objective, which '
     'training alone needs and the config has not'),
    (r'roi_head\.baron_\w+\.positional_embed\..+', 'the position of regions '
     'in a bag, which training alone needs and the config has not'),
    (r'roi_head\.bbox_head\.kd\..+', "the second head of BARON's ensemble, "
     'which this package has not'),
    (r'(?:visual|text)(?:\.\w+)*\.rope\.freqs_(?:cos|sin)', 'rotary '
     'embeddings, which are computed'),
)


def reason_unused(name: str) -> str | None:
    """Why a weight may have no place in our model.

    Args:
        name (str): In the checkpoint.

    Returns:
        str or None: None if it should have one.
    """
    for pattern, reason in UNUSED:
        if re.fullmatch(pattern, name):
            return reason
    return None
