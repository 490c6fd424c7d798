# Licensed under the Apache License, Version 2.0.
from .centernet_proposal_head import CenterNetProposalHead

__all__ = ['CenterNetProposalHead']
