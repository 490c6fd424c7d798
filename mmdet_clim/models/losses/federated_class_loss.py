# Licensed under the Apache License, Version 2.0.
import torch
from mmengine.dist import all_reduce, broadcast
from torch import Tensor

from mmdet_clim.checks import check_range
from mmdet_clim.registry import MODELS

from .base_class_sigmoid_loss import BaseClassSigmoidLoss


@MODELS.register_module()
class FederatedClassLoss(BaseClassSigmoidLoss):
    r"""Sigmoid cross-entropy over a drawn part of the base classes.

    LVIS's images are annotated for some classes only, so most of its
    vocabulary is neither there nor known to be absent. The loss of a step
    covers a set :math:`S` of classes: those that the proposals are labelled
    with, and further base classes drawn without replacement with probability

    .. math:: p_c \propto \sqrt{f_c}

    until :math:`|S|` is ``num_sampled``, where :math:`f_c` is the number of
    training images that show class :math:`c`. All other classes have loss 0
    (Zhou et al., "Probabilistic two-stage detection", arXiv 2103.07461,
    federated loss: :math:`|S| = 50`). Novel classes are never
    drawn.

    The counts :math:`f_c` come with the head's vocabulary; base classes of a
    vocabulary without counts are drawn alike.

    Args:
        num_sampled (int): Size of :math:`S`.
        loss_weight (float): Weight of the loss.
        gather (bool): Whether all processes have one set :math:`S`, with
            what the proposals of any of them are labelled with. Otherwise
            each draws its own, as CenterNet2 does.

    Raises:
        ValueError: If ``num_sampled`` is below 1.
    """

    def __init__(self,
                 num_sampled: int = 50,
                 loss_weight: float = 1.0,
                 gather: bool = False) -> None:
        super().__init__(loss_weight)
        check_range(1, num_sampled=num_sampled)
        self.num_sampled = num_sampled
        self.gather = gather

    @property
    def drawing_weights(self) -> Tensor:
        """How likely a class is to be drawn: float (C,), 0 if not base."""
        return self.classes.image_counts.sqrt() * self.class_weights

    def step_weights(self, labels: Tensor) -> Tensor:
        """1 for the classes of this step, 0 for the others: (C,)."""
        return self.draw(labels) * self.class_weights

    def draw(self, labels: Tensor) -> Tensor:
        """Draw the classes of one step.

        Args:
            labels (Tensor): Class indices (N,); C is the background.

        Returns:
            Tensor: float (C,), 1 for the classes in :math:`S`.
        """
        drawing_weights = self.drawing_weights
        num_classes = len(drawing_weights)
        chosen = drawing_weights.new_zeros(num_classes)
        chosen[labels[labels < num_classes]] = 1
        if self.gather:
            all_reduce(chosen, 'max')
        weights = drawing_weights * (1 - chosen)
        missing = min(self.num_sampled - int(chosen.sum()),
                      int((weights > 0).sum()))
        if missing > 0:
            chosen[torch.multinomial(weights, missing)] = 1
        if self.gather:
            broadcast(chosen)
        return chosen
