# Licensed under the Apache License, Version 2.0.
from typing import Tuple

import torch
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_clim.checks import check_range
from mmdet_clim.datasets.vocabulary import build_vocabulary
from mmdet_clim.registry import MODELS

from .proposal_scores import RescoringRoIHead
from .softmax_zero_shot_classifier import SoftmaxZeroShotClassifier


def ensemble_scores(detector: Tensor, clip: Tensor, is_base: Tensor,
                    alpha: float, beta: float) -> Tensor:
    r"""Weighted geometric means of two scores.

    :math:`s = d^{1-\alpha}\,p^{\alpha}` for base classes and the background,
    :math:`s = d^{1-\beta}\,p^{\beta}` for novel ones (REFERENCE.md, section
    5).

    Args:
        detector (Tensor): Scores :math:`d`, shape (N, C + 1), background
            last.
        clip (Tensor): Scores :math:`p`, shape (N, C + 1).
        is_base (Tensor): Bool (C,).
        alpha (float): Weight of :math:`p` for base classes.
        beta (float): Weight of :math:`p` for novel classes.

    Returns:
        Tensor: Shape (N, C + 1).
    """
    weight = torch.where(is_base, alpha, beta).to(clip)
    weight = torch.cat([weight, weight.new_tensor([alpha])])
    return detector**(1 - weight) * clip**weight


@MODELS.register_module()
class FViTRoIHead(RescoringRoIHead):
    r"""A box head whose test scores are joined with those of a frozen CLIP.

    :func:`ensemble_scores` of the head's softmax and
    :math:`\text{softmax}_c(\tau\,\cos(e, t_c))`, where :math:`e` is the
    embedding of the proposal in the dense features of the frozen tower and
    :math:`t_c` the classes and the learned background (REFERENCE.md, section
    5). Training is that of :class:`mmdet.StandardRoIHead`.

    Args:
        alpha (float): Weight of CLIP's score for base classes.
        beta (float): Weight of CLIP's score for novel classes.
        clip_temperature (float): :math:`\tau`.
        trained_vocabulary (optional): Anything that ``build_vocabulary``
            reads. Base is then what is base there, by its name, whatever the
            box head's own vocabulary says of it: for a vocabulary that the
            detector was not trained with. Without it, base is what the box
            head's vocabulary says or, where names were given later that tell
            no split, what was base among those that it was built with.
        **kwargs: Of :class:`mmdet.StandardRoIHead`.

    Raises:
        ValueError: If a weight is out of [0, 1].
        TypeError: If the box head does not classify by a
            :class:`SoftmaxZeroShotClassifier`.
    """

    def __init__(self,
                 *args,
                 alpha: float,
                 beta: float,
                 clip_temperature: float,
                 trained_vocabulary=None,
                 **kwargs) -> None:
        super().__init__(*args, **kwargs)
        check_range(0, 1, alpha=alpha, beta=beta)
        classifier = self.bbox_head.fc_cls
        if not isinstance(classifier, SoftmaxZeroShotClassifier):
            raise TypeError('FViTRoIHead: expected a bbox_head with a '
                            'SoftmaxZeroShotClassifier, got a '
                            f'{type(classifier).__name__}')
        self.alpha = alpha
        self.beta = beta
        self.clip_temperature = clip_temperature
        self._built_with = self.bbox_head.vocabulary
        self.trained_vocabulary = None
        if trained_vocabulary is not None:
            self.trained_vocabulary = build_vocabulary(trained_vocabulary)

    @property
    def is_base(self) -> Tuple[bool, ...]:
        """One flag per class: whether it counts as base."""
        vocabulary = self.bbox_head.vocabulary
        trained = self.trained_vocabulary
        if trained is None and not all(vocabulary.is_base):
            return vocabulary.is_base
        base = set((trained or self._built_with).base_names)
        return tuple(name in base for name in vocabulary.names)

    def rescore(self, scores: Tensor, proposals: InstanceData) -> Tensor:
        """See the base class.

        Of ``proposals``, their ``clip_embeddings`` (n, D), which
        :class:`FViT` adds.
        """
        cosines = self.bbox_head.fc_cls.all_cosines(proposals.clip_embeddings)
        is_base = torch.tensor(self.is_base, device=cosines.device)
        return ensemble_scores(scores,
                               (self.clip_temperature * cosines).softmax(1),
                               is_base, self.alpha, self.beta)
