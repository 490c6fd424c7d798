# Licensed under the Apache License, Version 2.0.
"""Detections whose scores are joined with others."""
from abc import abstractmethod

import torch
from mmdet.models.layers import multiclass_nms
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.structures.bbox import scale_boxes
from mmdet.utils import ConfigType, InstanceList
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_clim.checks import check_range
from mmdet_clim.datasets.vocabulary import build_vocabulary
from mmdet_clim.registry import MODELS

from .zero_shot_classifier import SoftmaxZeroShotClassifier


def select_detections(
        boxes: Tensor,
        scores: Tensor,
        cfg: ConfigType | None,
        scale_factor: tuple[float, float] | None = None) -> InstanceData:
    """The best of one image's boxes by their scores.

    Args:
        boxes (Tensor): Shape (n, 4), absolute xyxy.
        scores (Tensor): Shape (n, C + 1), the last one the background's.
        cfg (dict, optional): ``score_thr``, ``nms``, ``max_per_img``; None
            for every box with its scores.
        scale_factor (tuple[float, float], optional): By which boxes are
            divided, (width, height).

    Returns:
        InstanceData: ``bboxes`` (m, 4) absolute xyxy, ``scores`` (m,) and
        ``labels`` (m,); without ``cfg``, ``bboxes`` and the given ``scores``.
    """
    if scale_factor is not None and len(boxes):
        boxes = scale_boxes(boxes, [1 / s for s in scale_factor])
    if cfg is None:
        return InstanceData(bboxes=boxes, scores=scores)
    detections, labels = multiclass_nms(boxes, scores, cfg.score_thr, cfg.nms,
                                        cfg.max_per_img)
    return InstanceData(
        bboxes=detections[:, :4], scores=detections[:, 4], labels=labels)


class RescoringRoIHead(StandardRoIHead):
    """A box head whose test scores are joined with others before the NMS.

    Args:
        **kwargs: Of :class:`mmdet.StandardRoIHead`, whose training it has.
    """

    @abstractmethod
    def rescore(self, scores: Tensor, proposals: InstanceData) -> Tensor:
        """The scores that count.

        Args:
            scores (Tensor): Those of the box head for one image, (n, C + 1),
                the last one the background's.
            proposals (InstanceData): The n proposals of the image.

        Returns:
            Tensor: Shape (n, C + 1).
        """

    def predict_bbox(self,
                     x: tuple[Tensor],
                     batch_img_metas: list[dict],
                     rpn_results_list: InstanceList,
                     rcnn_test_cfg: ConfigType | None,
                     rescale: bool = False) -> InstanceList:
        """Detections of each image; see ``StandardRoIHead.predict_bbox``.

        Without ``rcnn_test_cfg``, every box with all its scores.
        """
        found = super().predict_bbox(
            x, batch_img_metas, rpn_results_list, None, rescale=rescale)
        return [
            select_detections(of_image.bboxes,
                              self.rescore(of_image.scores, proposals),
                              rcnn_test_cfg)
            for of_image, proposals in zip(found, rpn_results_list)
        ]


@MODELS.register_module()
class ProposalScoreRoIHead(RescoringRoIHead):
    r"""A box head whose test scores are weighted by the proposals' scores.

    A proposal is an object of class :math:`c` with score
    :math:`p(c)^{1 - w}\, p_\text{proposal}^w`; :math:`w = 1/2` is the square
    root of REFERENCE.md, section 2 (CenterNet2), here for a plain two-stage
    detector. The box losses tell a class what is no whole object only for
    base classes; the proposal's score tells it for every class. Training is
    that of :class:`mmdet.StandardRoIHead`.

    Args:
        proposal_weight (float): :math:`w`, in [0, 1).
        **kwargs: Of :class:`mmdet.StandardRoIHead`.

    Raises:
        ValueError: If ``proposal_weight`` is out of its range.
    """

    def __init__(self, *args, proposal_weight: float = 0.5, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        check_range(0, 1, without=(1, ), proposal_weight=proposal_weight)
        self.proposal_weight = proposal_weight

    def rescore(self, scores: Tensor, proposals: InstanceData) -> Tensor:
        """See the base class; of ``proposals``, their ``scores`` (n,)."""
        weight = self.proposal_weight
        likely = proposals.scores.clamp(min=0)[:, None]
        return scores**(1 - weight) * likely**weight


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
    def is_base(self) -> tuple[bool, ...]:
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
        clip = (self.clip_temperature * cosines).softmax(1)
        return ensemble_scores(scores, clip, is_base, self.alpha, self.beta)
