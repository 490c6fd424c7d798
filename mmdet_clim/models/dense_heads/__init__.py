# Licensed under the Apache License, Version 2.0.
from .centernet_proposal_head import CenterNetProposalHead
from .norm_rpn_head import NormRPNHead
from .objectness_tower_rpn_head import ObjectnessTowerRPNHead
from .zero_shot_head import ZeroShotDenseMixin, ZeroShotHead
from .zero_shot_layer import ZeroShotLayer

__all__ = [
    'CenterNetProposalHead', 'NormRPNHead', 'ObjectnessTowerRPNHead',
    'ZeroShotDenseMixin', 'ZeroShotHead', 'ZeroShotLayer'
]
