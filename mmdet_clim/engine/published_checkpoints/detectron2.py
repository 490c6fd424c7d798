# Licensed under the Apache License, Version 2.0.
"""Names of Detic's own checkpoints, which Detectron2 wrote.

What Detectron2 numbers from ``res2`` or ``p3`` on, mmdet numbers from 1 or 0
on.
"""
import re
from collections.abc import Callable

from .names import CASCADE, Rule, in_box_head

#: Constants of a model, which must be those of ours: name and what it is.
CONSTANTS = (
    (r'pixel_(mean|std)', 'pixels'),
    (r'proposal_generator\.anchor_generator\.cell_anchors\.0', 'anchors'),
)


def _lower(group: int, by: int, form: str) -> Callable[[re.Match], str]:
    """A target in which one number is lower."""

    def target(match: re.Match) -> str:
        return match.expand(form.format(int(match[group]) - by))

    return target


def _residual(source: str, layer: str) -> list[Rule]:
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

RULES = [
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
    Rule(rf'roi_heads\.box_head{CASCADE}fc1\.(\w+)',
         in_box_head(r'shared_fcs.0.\2')),
    Rule(rf'roi_heads\.box_head{CASCADE}fc2\.(\w+)',
         in_box_head(r'shared_fcs.1.\2')),
    Rule(rf'roi_heads\.box_predictor{CASCADE}cls_score\.linear\.(\w+)',
         in_box_head(r'fc_cls.projection.\2')),
    Rule(rf'roi_heads\.box_predictor{CASCADE}cls_score\.cls_bias',
         in_box_head('fc_cls.logit_bias'), 'scalar'),
    Rule(rf'roi_heads\.box_predictor{CASCADE}bbox_pred\.0\.(\w+)',
         in_box_head(r'fc_reg.hidden.\2')),
    Rule(rf'roi_heads\.box_predictor{CASCADE}bbox_pred\.2\.(\w+)',
         in_box_head(r'fc_reg.out.\2')),
    Rule(r'roi_heads\.mask_head\.mask_fcn(\d+)\.(\w+)',
         _lower(1, 1, r'roi_head.{{mask}}.convs.{}.conv.\2')),
    Rule(r'roi_heads\.mask_head\.deconv\.(\w+)',
         r'roi_head.{mask}.upsample.\1'),
    Rule(r'roi_heads\.mask_head\.predictor\.(\w+)',
         r'roi_head.{mask}.conv_logits.\1'),
]
