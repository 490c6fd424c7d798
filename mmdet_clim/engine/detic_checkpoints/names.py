# Licensed under the Apache License, Version 2.0.
"""Names in Detic's checkpoints, and ours for the same weights.

A rule is a pattern of a whole name and what becomes of it. What a Detectron2
model numbers from ``res2`` or ``p3`` on, mmdet numbers from 1 or 0 on.
"""
import re
from typing import Callable, List, NamedTuple, Optional, Tuple, Union

Replacement = Union[str, Callable[[re.Match], str]]


class Rule(NamedTuple):
    """What becomes of the weights whose name matches.

    Attributes:
        pattern (str): Regular expression of the whole name.
        target (str or callable): Our name, as for ``re.sub``; it may hold
            ``{shared}``, the layer of the RoI head's shared layers.
        change (str): ``''``: none; ``'anchors'``: reorder the first
            dimension from Detectron2's order of anchors to ours;
            ``'merge'``: reorder the input of Swin's patch merging;
            ``'scalar'``: one number without a dimension.
    """
    pattern: str
    target: Replacement
    change: str = ''


# Follow from the config: text embeddings of the classes, and how many images
# show each class.
FROM_CONFIG = (r'roi_heads?\.(?:box_predictor|bbox_head)\.(?:\d+\.)?'
               r'(?:(?:cls_score|fc_cls)\.zs_weight|freq_weight)')

# Constants of a model, which must be those of ours: name and what it is.
CONSTANTS = (
    (r'pixel_(mean|std)', 'pixels'),
    (r'proposal_generator\.anchor_generator\.cell_anchors\.0', 'anchors'),
)


def _lower(group: int, by: int, form: str) -> Callable[[re.Match], str]:
    """A target in which one number is lower."""

    def target(match: re.Match) -> str:
        return match.expand(form.format(int(match[group]) - by))

    return target


def _residual(source: str, layer: str) -> List[Rule]:
    """A ResNet stage of Detectron2; group 1 is its number."""

    def target(match: re.Match) -> str:
        _, block, part, norm, name = match.groups()
        if part == 'shortcut':
            part = f'downsample.{1 if norm else 0}'
        elif norm:
            part = part.replace('conv', 'bn')
        number = int(match[1]) - 1
        return f'{layer.replace("#", str(number))}.{block}.{part}.{name}'

    return [
        Rule(
            rf'{source}\.(\d+)\.(conv[123]|shortcut)(\.norm)?\.'
            r'(weight|bias|running_mean|running_var)', target)
    ]


_BODY = r'backbone\.(?:bottom_up\.)?'
_SWIN = r'backbone\.bottom_up\.layers\.(\d+)\.'
_BLOCK = _SWIN + r'blocks\.(\d+)\.'
_OUR_BLOCK = r'backbone.stages.\1.blocks.\2.'
_CASCADE = r'(?:\.(\d+))?\.'


def _stage(form: str) -> Callable[[re.Match], str]:
    """A box head of a cascade, or the only one; group 1 is its number."""

    def target(match: re.Match) -> str:
        number = '' if match[1] is None else f'.{match[1]}'
        return f'roi_head.bbox_head{number}.' + match.expand(form)

    return target


DETECTRON2 = [
    # ResNet: Detectron2's, and timm's inside of it.
    Rule(_BODY + r'stem\.conv1\.weight', 'backbone.conv1.weight'),
    Rule(_BODY + r'stem\.conv1\.norm\.(\w+)', r'backbone.bn1.\1'),
    *_residual(_BODY + 'res([2-5])', 'backbone.layer#'),
    *_residual(r'roi_heads\.res(5)', 'roi_head.shared_head.{shared}'),
    Rule(
        r'backbone\.bottom_up\.base\.((?:conv1|bn1|layer[1-4]\.\d+\.'
        r'(?:conv[123]|bn[123]|downsample\.[01]))\.\w+)', r'backbone.\1'),
    # Swin.
    Rule(r'backbone\.bottom_up\.patch_embed\.proj\.(\w+)',
         r'backbone.patch_embed.projection.\1'),
    Rule(r'backbone\.bottom_up\.(patch_embed\.norm|norm[0-3])\.(\w+)',
         r'backbone.\1.\2'),
    Rule(_BLOCK + r'(norm[12]\.\w+)', _OUR_BLOCK + r'\3'),
    Rule(_BLOCK + r'attn\.(.+)', _OUR_BLOCK + r'attn.w_msa.\3'),
    Rule(_BLOCK + r'mlp\.fc1\.(\w+)', _OUR_BLOCK + r'ffn.layers.0.0.\3'),
    Rule(_BLOCK + r'mlp\.fc2\.(\w+)', _OUR_BLOCK + r'ffn.layers.1.\3'),
    Rule(_SWIN + r'downsample\.reduction\.weight',
         r'backbone.stages.\1.downsample.reduction.weight', 'merge'),
    Rule(_SWIN + r'downsample\.norm\.(\w+)',
         r'backbone.stages.\1.downsample.norm.\2', 'merge'),
    # FPN.
    Rule(r'backbone\.fpn_lateral([345])\.(\w+)',
         _lower(1, 3, r'neck.lateral_convs.{}.conv.\2')),
    Rule(r'backbone\.fpn_output([345])\.(\w+)',
         _lower(1, 3, r'neck.fpn_convs.{}.conv.\2')),
    Rule(r'backbone\.top_block\.p([67])\.(\w+)',
         _lower(1, 3, r'neck.fpn_convs.{}.conv.\2')),
    # Proposals: CenterNet, whose tower is (convolution, norm, ReLU) in turn,
    # and RPN.
    Rule(
        r'proposal_generator\.centernet_head\.bbox_tower\.(\d+)\.(\w+)',
        lambda match: match.expand('rpn_head.reg_convs.{}.{}.\\2').format(
            int(match[1]) // 3, ('conv', 'gn', 'relu')[int(match[1]) % 3])),
    Rule(r'proposal_generator\.centernet_head\.bbox_pred\.(\w+)',
         r'rpn_head.conv_reg.\1'),
    Rule(r'proposal_generator\.centernet_head\.agn_hm\.(\w+)',
         r'rpn_head.conv_cls.\1'),
    Rule(r'proposal_generator\.centernet_head\.scales\.(\d+)\.scale',
         r'rpn_head.scales.\1.scale', 'scalar'),
    Rule(r'proposal_generator\.rpn_head\.conv\.(\w+)',
         r'rpn_head.rpn_conv.\1'),
    Rule(r'proposal_generator\.rpn_head\.objectness_logits\.(\w+)',
         r'rpn_head.rpn_cls.\1', 'anchors'),
    Rule(r'proposal_generator\.rpn_head\.anchor_deltas\.(\w+)',
         r'rpn_head.rpn_reg.\1', 'anchors'),
    # Box heads, one or a cascade, and the mask head.
    Rule(rf'roi_heads\.box_head{_CASCADE}fc1\.(\w+)',
         _stage(r'shared_fcs.0.\2')),
    Rule(rf'roi_heads\.box_head{_CASCADE}fc2\.(\w+)',
         _stage(r'shared_fcs.1.\2')),
    Rule(rf'roi_heads\.box_predictor{_CASCADE}cls_score\.linear\.(\w+)',
         _stage(r'fc_cls.projection.\2')),
    Rule(rf'roi_heads\.box_predictor{_CASCADE}cls_score\.cls_bias',
         _stage('fc_cls.logit_bias'), 'scalar'),
    Rule(rf'roi_heads\.box_predictor{_CASCADE}bbox_pred\.0\.(\w+)',
         _stage(r'fc_reg.hidden.\2')),
    Rule(rf'roi_heads\.box_predictor{_CASCADE}bbox_pred\.2\.(\w+)',
         _stage(r'fc_reg.out.\2')),
    Rule(r'roi_heads\.mask_head\.mask_fcn(\d+)\.(\w+)',
         _lower(1, 1, r'roi_head.mask_head.0.convs.{}.conv.\2')),
    Rule(r'roi_heads\.mask_head\.deconv\.(\w+)',
         r'roi_head.mask_head.0.upsample.\1'),
    Rule(r'roi_heads\.mask_head\.predictor\.(\w+)',
         r'roi_head.mask_head.0.conv_logits.\1'),
]

_HEAD = rf'roi_head\.bbox_head{_CASCADE}'
MMDET = [
    Rule(_HEAD + r'fc_cls\.linear\.(\w+)', _stage(r'fc_cls.projection.\2')),
    Rule(_HEAD + r'fc_cls\.cls_bias', _stage('fc_cls.logit_bias'), 'scalar'),
    Rule(_HEAD + r'fc_reg\.0\.(\w+)', _stage(r'fc_reg.hidden.\2')),
    Rule(_HEAD + r'fc_reg\.2\.(\w+)', _stage(r'fc_reg.out.\2')),
    Rule(_HEAD + r'shared_fcs\.(\d+)\.(\w+)', _stage(r'shared_fcs.\2.\3')),
    # One mask head for all stages, which our cascade keeps in a list.
    Rule(r'roi_head\.mask_head\.((?:convs|upsample|conv_logits)\..+)',
         r'roi_head.mask_head.0.\1'),
    Rule(r'(roi_head\.mask_head\.0\..+)', r'\1'),
    Rule(r'(rpn_head\.scales\.\d+\.scale)', r'\1', 'scalar'),
    # The rest is mmdet's own and has its names.
    Rule(r'((?:backbone|neck|rpn_head|roi_head\.shared_head)\..+)', r'\1'),
]

RULES = dict(detectron2=DETECTRON2, mmdet=MMDET)


def translate(name: str, source: str) -> Optional[Tuple[str, str]]:
    """Our name of a weight.

    Args:
        name (str): In the checkpoint.
        source (str): A key of ``RULES``.

    Returns:
        tuple[str, str] or None: Our name and the change that the weight needs
        (see :class:`Rule`); None for a name that no rule knows.
    """
    for rule in RULES[source]:
        match = re.fullmatch(rule.pattern, name)
        if match:
            target = rule.target(match) if callable(
                rule.target) else match.expand(rule.target)
            return target, rule.change
    return None
