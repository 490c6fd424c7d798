# Licensed under the Apache License, Version 2.0.
"""Detections whose scores take account of the proposals' scores."""
from abc import abstractmethod
from typing import List, Optional, Tuple

from mmdet.models.layers import multiclass_nms
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.structures.bbox import scale_boxes
from mmdet.utils import ConfigType, InstanceList
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_clim.checks import check_range
from mmdet_clim.registry import MODELS


def select_detections(
        boxes: Tensor,
        scores: Tensor,
        cfg: Optional[ConfigType],
        scale_factor: Optional[Tuple[float, float]] = None) -> InstanceData:
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
                     x: Tuple[Tensor],
                     batch_img_metas: List[dict],
                     rpn_results_list: InstanceList,
                     rcnn_test_cfg: Optional[ConfigType],
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
