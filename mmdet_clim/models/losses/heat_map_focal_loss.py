# Licensed under the Apache License, Version 2.0.

import torch
from torch import Tensor, nn

from mmdet_clim.checks import check_range
from mmdet_clim.registry import MODELS


@MODELS.register_module()
class HeatMapFocalLoss(nn.Module):
    r"""Focal loss of CenterNet2's heat map of object centres.

    With the likelihood :math:`p` and the target :math:`t` of each cell and
    the set :math:`P` of positive cells

    .. math::

        L = -w_+ \alpha \sum_{P} (1 - p)^\gamma \log p
            - w_- (1 - \alpha) \sum_{\text{all}} [p < h]\, (1 - t)^\beta
            p^\gamma \log (1 - p)

    divided by ``avg_factor`` (Zhou et al., "Probabilistic two-stage
    detection", arXiv 2103.07461; constants of REFERENCE.md, section 2). A
    cell far from every annotated centre whose likelihood is above :math:`h`
    is taken for an object that nobody annotated, and says nothing.

    Args:
        alpha (float): :math:`\alpha`.
        beta (float): :math:`\beta`.
        gamma (float): :math:`\gamma`.
        pos_weight (float): :math:`w_+`.
        neg_weight (float): :math:`w_-`.
        ignore_high_fp (float): :math:`h`; 1 takes account of every cell.
        loss_weight (float): Weight of the loss.

    Raises:
        ValueError: If ``ignore_high_fp`` is not in (0, 1].
    """

    def __init__(self,
                 alpha: float = 0.25,
                 beta: float = 4.0,
                 gamma: float = 2.0,
                 pos_weight: float = 0.5,
                 neg_weight: float = 0.5,
                 ignore_high_fp: float = 0.85,
                 loss_weight: float = 1.0) -> None:
        super().__init__()
        check_range(0, 1, without=(0, ), ignore_high_fp=ignore_high_fp)
        self.alpha = alpha
        self.beta = beta
        self.gamma = gamma
        self.pos_weight = pos_weight
        self.neg_weight = neg_weight
        self.ignore_high_fp = ignore_high_fp
        self.loss_weight = loss_weight

    def forward(self,
                pred: Tensor,
                target: Tensor,
                pos_inds: Tensor | None = None,
                pos_labels: Tensor | None = None,
                avg_factor: float = 1.0) -> Tensor:
        """Compute the loss.

        Args:
            pred (Tensor): Likelihoods (N, C) in (0, 1).
            target (Tensor): Heat map (N, C), 1 at the centre of an object.
            pos_inds (Tensor, optional): int64 (M,), the rows of the positive
                cells; one may stand twice. None: there are none.
            pos_labels (Tensor, optional): int64 (M,), their columns.
            avg_factor (float): Divisor of the sums.
        """
        far = (1 - target).pow(self.beta) * (pred < self.ignore_high_fp)
        negative = -(far * pred.pow(self.gamma) * torch.log1p(-pred)).sum()
        loss = self.neg_weight * (1 - self.alpha) * negative
        if pos_inds is not None:
            likely = pred[pos_inds, pos_labels]
            positive = -((1 - likely).pow(self.gamma) * likely.log()).sum()
            loss = loss + self.pos_weight * self.alpha * positive
        return self.loss_weight * loss / avg_factor
