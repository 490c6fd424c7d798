# Licensed under the Apache License, Version 2.0.
from typing import Dict, Optional, Tuple

import torch.nn.functional as F
from mmdet.models.losses import accuracy
from torch import Tensor, nn

from mmdet_clim.models.class_texts import ClassTexts
from mmdet_clim.registry import MODELS


@MODELS.register_module()
class BaseClassSigmoidLoss(nn.Module):
    """Sigmoid cross-entropy of a box head over the base classes alone.

    The boxes of an open-vocabulary training set say nothing of novel classes,
    so these carry weight 0 (REFERENCE.md, section 2). The losses of the base
    classes are summed per proposal and averaged over proposals. Which are
    base, the loss reads from the classes of its head (:meth:`set_classes`).
    The attributes ``custom_*`` are mmdet's protocol for a loss that brings
    its own channels, activation and accuracy (as ``SeesawLoss`` does).

    Args:
        loss_weight (float): Weight of the loss.
    """

    custom_cls_channels = True
    custom_activation = True
    custom_accuracy = True

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self._classes: Tuple[ClassTexts, ...] = ()

    def set_classes(self, classes: ClassTexts) -> None:
        """Read from now on what the owner of the classes knows of them."""
        # In a tuple: they are the head's module, not the loss's.
        self._classes = (classes, )

    @property
    def classes(self) -> ClassTexts:
        """The classes of the head."""
        return self._classes[0]

    @property
    def class_weights(self) -> Tensor:
        """1 for a base class, 0 for another: float (C,)."""
        return self.classes.is_base.float()

    def step_weights(self, labels: Tensor) -> Tensor:
        """Weight of each class in the loss of one step.

        Args:
            labels (Tensor): Class indices (N,) of the step.

        Returns:
            Tensor: Shape (C,).
        """
        return self.class_weights

    def get_cls_channels(self, num_classes: int) -> int:
        """One logit per class; the background has none."""
        return num_classes

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """Logits (N, C) to scores (N, C + 1), the background's being 0."""
        return F.pad(cls_score.sigmoid(), (0, 1))

    def get_accuracy(self, cls_score: Tensor,
                     labels: Tensor) -> Dict[str, Tensor]:
        """Accuracy in percent over the proposals that hold an object."""
        foreground = labels < len(self.classes)
        return {
            'acc_classes': accuracy(cls_score[foreground], labels[foreground])
        }

    def proposal_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss (N,) of each proposal, of float32 logits."""
        targets = F.one_hot(labels, logits.shape[1] + 1)[:, :-1]
        loss = F.binary_cross_entropy_with_logits(
            logits, targets.to(logits), reduction='none')
        return (loss * self.step_weights(labels)).sum(1)

    def forward(self,
                cls_score: Tensor,
                labels: Tensor,
                label_weights: Optional[Tensor] = None,
                avg_factor: Optional[float] = None,
                reduction_override: Optional[str] = None) -> Tensor:
        """Compute the loss.

        Args:
            cls_score (Tensor): Logits, as many as :meth:`get_cls_channels`
                says.
            labels (Tensor): Class indices, shape (N,); C is the background.
            label_weights (Tensor, optional): One weight per proposal, (N,).
            avg_factor (float, optional): Divisor of the sum. Defaults to N.
            reduction_override (str, optional): 'none' for one value per
                proposal (N,), 'sum' for the sum, 'mean' for the average.

        Returns:
            Tensor: The loss.
        """
        loss = self.loss_weight * self.proposal_losses(cls_score.float(),
                                                       labels)
        if label_weights is not None:
            loss = loss * label_weights
        if reduction_override == 'none':
            return loss
        if reduction_override == 'sum':
            return loss.sum()
        return loss.sum() / (avg_factor or max(len(loss), 1))
