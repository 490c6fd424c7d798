# Licensed under the Apache License, Version 2.0.
"""Losses of a box head over the classes that it has boxes of."""

import torch
import torch.nn.functional as F
from mmdet.models.losses import accuracy
from mmengine.dist import all_reduce, broadcast
from torch import Tensor, nn

from mmdet_clim.checks import check_range
from mmdet_clim.registry import MODELS

from ..class_texts import ClassTexts


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
        compete (bool): Whether classes compete at test time: the score of a
            class is its probability times its share of the softmax over all
            classes of the vocabulary. An object of one class is then no
            likely object of its neighbour among the texts, whose probability
            alone may be as high. Training is the same.
    """

    custom_cls_channels = True
    custom_activation = True
    custom_accuracy = True

    def __init__(self,
                 loss_weight: float = 1.0,
                 compete: bool = False) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.compete = compete
        self._classes: tuple[ClassTexts, ...] = ()

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
        scores = cls_score.sigmoid()
        if self.compete:
            scores = scores * cls_score.softmax(1)
        return F.pad(scores, (0, 1))

    def get_accuracy(self, cls_score: Tensor,
                     labels: Tensor) -> dict[str, Tensor]:
        """Accuracy in percent over the proposals that hold an object."""
        foreground = labels < len(self.classes)
        share = accuracy(cls_score[foreground], labels[foreground])
        return {'acc_classes': share}

    def proposal_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss (N,) of each proposal, of float32 logits."""
        targets = F.one_hot(labels, logits.shape[1] + 1)[:, :-1]
        loss = F.binary_cross_entropy_with_logits(
            logits, targets.to(logits), reduction='none')
        return (loss * self.step_weights(labels)).sum(1)

    def forward(self,
                cls_score: Tensor,
                labels: Tensor,
                label_weights: Tensor | None = None,
                avg_factor: float | None = None,
                reduction_override: str | None = None) -> Tensor:
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
