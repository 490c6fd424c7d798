# Licensed under the Apache License, Version 2.0.
"""Names of checkpoints of detectors that MMDetection built.

Most parts are mmdet's own and have its names. What follows is what the
published heads and backbones call otherwise than this package does.
"""
from .names import CASCADE, Rule, in_box_head

_HEAD = rf'roi_head\.bbox_head{CASCADE}'
# One mask head for all stages, which our cascade keeps in a list.
_MASK = Rule(
    r'roi_head\.mask_head(?:\.0)?\.((?:convs|upsample|conv_logits)'
    r'\..+)', r'roi_head.{mask}.\1')
# An MLP that regresses boxes.
_REGRESSOR = [
    Rule(_HEAD + r'fc_reg\.0\.(\w+)', in_box_head(r'fc_reg.hidden.\2')),
    Rule(_HEAD + r'fc_reg\.2\.(\w+)', in_box_head(r'fc_reg.out.\2')),
]
_FCS = Rule(_HEAD + r'shared_fcs\.(\d+)\.(\w+)',
            in_box_head(r'shared_fcs.\2.\3'))

#: MMDetection's Detic (CenterNet2), and CLIM on it.
DETIC = [
    Rule(_HEAD + r'fc_cls\.linear\.(\w+)',
         in_box_head(r'fc_cls.projection.\2')),
    Rule(_HEAD + r'fc_cls\.cls_bias', in_box_head('fc_cls.logit_bias'),
         'scalar'),
    *_REGRESSOR,
    _FCS,
    _MASK,
    Rule(r'(rpn_head\.scales\.\d+\.scale)', r'\1', 'scalar'),
    Rule(r'((?:backbone|neck|rpn_head|roi_head\.shared_head)\..+)', r'\1'),
]

#: Detic (C4) and CLIM on it, BARON, F-ViT and F-VLM.
OVDET = [
    # The two levels of a ViT's pyramid that are deconvolved.
    Rule(r'backbone\.interpolate1\.(\d+\..+)', r'backbone.levels.0.\1'),
    Rule(r'backbone\.interpolate2\.0\.(.+)', r'backbone.levels.1.\1'),
    Rule(r'(backbone\.(?:conv1|bn1|layer[1-4]\.).+)', r'\1'),
    # Their anchors are in Detectron2's order. BARON's scores of objects may
    # come from a tower, whose last layer is that of the anchors.
    Rule(r'(rpn_head\.rpn_(?:cls|reg)(?:\.2)?\.(?:weight|bias))', r'\1',
         'anchors'),
    Rule(r'roi_head\.bbox_head\.fc_cls\.(weight|bias)',
         r'roi_head.bbox_head.fc_cls.projection.\1'),
    Rule(r'roi_head\.bbox_head\.cls_bias',
         'roi_head.bbox_head.fc_cls.logit_bias', 'scalar'),
    Rule(r'roi_head\.bbox_head\.cls_temp',
         'roi_head.bbox_head.fc_cls.log_temperature', 'log'),
    Rule(r'roi_head\.bbox_head\.background',
         'roi_head.bbox_head.fc_cls.background'),
    *_REGRESSOR,
    _MASK,
    Rule(
        r'(roi_head\.bbox_head\.(?:shared_convs|shared_fcs|cls_convs|cls_fcs|'
        r'reg_convs|reg_fcs|fc_reg)\..+)', r'\1'),
    Rule(r'roi_head\.detic_caption\.bce_bias', '{caption}bias', 'scalar'),
    Rule(r'roi_head\.detic_tags\.bce_bias', '{tag}bias', 'scalar'),
    Rule(r'roi_head\.baron_caption\.positional_embed\.pos_proj\.(.+)',
         r'{bag}layers.\1'),
    Rule(r'roi_head\.baron_kd\.positional_embed\.pos_proj\.(.+)',
         r'{distillation}layers.\1'),
    Rule(r'((?:neck|rpn_head|roi_head\.shared_head)\..+)', r'\1'),
]
