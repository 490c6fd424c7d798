# Licensed under the Apache License, Version 2.0.
from .centernet_proposal_head import CenterNetProposalHead
from .zero_shot_head import ZeroShotDenseMixin, ZeroShotHead
from .zero_shot_layer import ZeroShotLayer

__all__ = [
    'CenterNetProposalHead', 'ZeroShotDenseMixin', 'ZeroShotHead',
    'ZeroShotLayer'
]
