# Licensed under the Apache License, Version 2.0.
import torch.nn.functional as F
from torch import Tensor

from mmdet_clim.checks import check_range
from mmdet_clim.registry import MODELS

from .base_class_sigmoid_loss import BaseClassSigmoidLoss

# A probability of 0 that has a finite logarithm.
ABSENT_LOGIT = -1e4


@MODELS.register_module()
class BaseClassSoftmaxLoss(BaseClassSigmoidLoss):
    """Softmax cross-entropy over the base classes and the background.

    Novel classes are left out of the softmax while training: the boxes say
    nothing of them (REFERENCE.md, section 2, does so for a sigmoid; here for
    the softmax of section 5). At test time all classes compete.

    Args:
        background_weight (float): Weight of proposals that hold no object
            (REFERENCE.md, section 5: 0.6 on OV-COCO, 0.9 on OV-LVIS).
        loss_weight (float): Weight of the loss.

    Raises:
        ValueError: If ``background_weight`` is negative.
    """

    def __init__(self,
                 background_weight: float = 1.0,
                 loss_weight: float = 1.0) -> None:
        super().__init__(loss_weight)
        check_range(0, background_weight=background_weight)
        self.background_weight = background_weight

    def get_cls_channels(self, num_classes: int) -> int:
        """One logit per class and one of the background."""
        return num_classes + 1

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """Logits (N, C + 1) to scores that sum to 1."""
        return cls_score.float().softmax(1)

    def proposal_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See the base class; one labelled with a novel class has none."""
        weights = F.pad(
            self.step_weights(labels), (0, 1), value=self.background_weight)
        absent = F.pad(self.class_weights == 0, (0, 1))
        loss = F.cross_entropy(
            logits.masked_fill(absent, ABSENT_LOGIT), labels, reduction='none')
        return loss * weights[labels]
