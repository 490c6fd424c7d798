# Licensed under the Apache License, Version 2.0.
from .centernet_proposal_head import CenterNetProposalHead
from .objectness_tower_rpn_head import ObjectnessTowerRPNHead
from .zero_shot_head import ZeroShotDenseMixin, ZeroShotHead
from .zero_shot_layer import ZeroShotLayer

__all__ = [
    'CenterNetProposalHead', 'ObjectnessTowerRPNHead', 'ZeroShotDenseMixin',
    'ZeroShotHead', 'ZeroShotLayer'
]
