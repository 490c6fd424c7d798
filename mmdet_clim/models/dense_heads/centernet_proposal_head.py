# Licensed under the Apache License, Version 2.0.
from typing import List, Tuple

from mmcv.cnn import Scale
from mmdet.models.dense_heads import CenterNetUpdateHead
from mmdet.utils import InstanceList
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet_clim.registry import MODELS


@MODELS.register_module()
class CenterNetProposalHead(CenterNetUpdateHead):
    """CenterNet as the first stage of CenterNet2: an ``rpn_head``.

    Zhou et al., "Probabilistic two-stage detection" (arXiv 2103.07461): a
    class-agnostic heat map of object centres and distances to the four sides,
    both from one tower of convolutions. The score of a proposal is the
    likelihood of an object at its centre.

    What mmdet's ``CenterNetUpdateHead`` lacks for a two-stage detector: it
    predicts in units of the stride in training and in pixels otherwise, so
    that proposals decoded in training would be wrong. Here the forward pass
    is in units of the stride always, and :meth:`predict_by_feat` alone turns
    them into pixels. An image without boxes is all background; there it would
    not count at all.

    Args:
        **kwargs: Of :class:`mmdet.CenterNetUpdateHead`. ``num_classes`` is 1,
            as in every ``rpn_head``.
    """

    def _init_cls_convs(self) -> None:
        """The heat map has no tower of its own."""
        self.cls_convs = nn.ModuleList()

    def forward_single(self, x: Tensor, scale: Scale,
                       stride: int) -> Tuple[Tensor, Tensor]:
        """Feature map of one level to centres and distances.

        Args:
            x (Tensor): Shape (N, C, H, W).
            scale (Scale): The level's learnable factor.
            stride (int): Not used.

        Returns:
            tuple[Tensor, Tensor]: Logits (N, 1, H, W), and distances to the
            left, top, right and bottom in strides, (N, 4, H, W); float32.
        """
        for conv in self.reg_convs:
            x = conv(x)
        distances = scale(self.conv_reg(x)).float().clamp(min=0)
        return self.conv_cls(x).float(), distances

    def predict_by_feat(self, cls_scores: List[Tensor],
                        bbox_preds: List[Tensor], *args,
                        **kwargs) -> InstanceList:
        """Proposals from what :meth:`forward` gave; see mmdet's dense heads.

        Args:
            cls_scores (list[Tensor]): Of each level.
            bbox_preds (list[Tensor]): Of each level, in strides.
            ``*args``, ``**kwargs``: Of ``BaseDenseHead.predict_by_feat``.

        Returns:
            list[InstanceData]: ``bboxes`` (n, 4), absolute xyxy pixels,
            ``scores`` (n,), best first, and ``labels`` (n,), zeros.
        """
        in_pixels = [
            distances * stride
            for distances, stride in zip(bbox_preds, self.strides)
        ]
        return super().predict_by_feat(cls_scores, in_pixels, *args, **kwargs)

    def _get_targets_single(self, gt_instances: InstanceData, points: Tensor,
                            *args, **kwargs) -> Tuple[Tensor, Tensor]:
        """Targets of one image: of one without boxes, background."""
        if len(gt_instances) == 0:
            return (points.new_zeros(len(points), self.num_classes),
                    points.new_full((len(points), 4), -1))
        return super()._get_targets_single(gt_instances, points, *args,
                                           **kwargs)
