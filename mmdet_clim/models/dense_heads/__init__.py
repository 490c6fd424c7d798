# Licensed under the Apache License, Version 2.0.
from .centernet_proposal_head import CenterNetProposalHead
from .rpn_heads import NormRPNHead, ObjectnessTowerRPNHead
from .zero_shot_head import ZeroShotDenseMixin, ZeroShotHead, ZeroShotLayer

__all__ = [
    'CenterNetProposalHead', 'NormRPNHead', 'ObjectnessTowerRPNHead',
    'ZeroShotDenseMixin', 'ZeroShotHead', 'ZeroShotLayer'
]
