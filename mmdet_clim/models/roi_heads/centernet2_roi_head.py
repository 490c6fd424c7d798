# Licensed under the Apache License, Version 2.0.
from typing import Sequence

import torch
from mmdet.models.roi_heads import CascadeRoIHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmdet.models.task_modules.samplers import SamplingResult
from mmdet.models.utils import empty_instances
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox2roi
from mmdet.utils import ConfigType, InstanceList
from mmengine.model import ModuleList
from torch import Tensor

from mmdet_clim.registry import MODELS

from ..host import upload
from .rescoring import select_detections


def refine_rois(roi_head: CascadeRoIHead, stage: int, x: Sequence[Tensor],
                rois: Tensor, metas: Sequence[dict]) -> tuple[Tensor, Tensor]:
    """One stage of a cascade: its class scores, and better boxes.

    Args:
        roi_head (CascadeRoIHead): The cascade.
        stage (int): Which of its stages.
        x (Sequence[Tensor]): Feature maps.
        rois (Tensor): Shape (N, 5): image index, then absolute xyxy pixels.
        metas (Sequence[dict]): ``img_shape`` of each image, to which boxes
            are clipped.

    Returns:
        tuple[Tensor, Tensor]: RoIs (N, 5) that the stage regressed, and its
        scores (N, C) or, where the loss has a background, (N, C + 1).
    """
    head = roi_head.bbox_head[stage]
    results = roi_head._bbox_forward(stage, x, rois)
    scores = results['cls_score']
    if head.custom_activation:
        scores = head.loss_cls.get_activation(scores)
    else:
        scores = scores.softmax(1)
    labels = scores[:, :head.num_classes].argmax(1)
    boxes = _decode(head, rois, results['bbox_pred'], labels, metas)
    return torch.cat([rois[:, :1], boxes], 1), scores


@torch.no_grad()
def refine_boxes(roi_head: CascadeRoIHead, stage: int, x: Sequence[Tensor],
                 rois: Tensor, metas: Sequence[dict]) -> Tensor:
    """The boxes (N, 4) of :func:`refine_rois` alone, without gradient.

    Where boxes are regressed without regard to classes, no class is scored.
    """
    head = roi_head.bbox_head[stage]
    if not head.reg_class_agnostic:
        return refine_rois(roi_head, stage, x, rois, metas)[0][:, 1:]
    extractor = roi_head.bbox_roi_extractor[stage]
    regions = extractor(x[:extractor.num_inputs], rois)
    # The maps are in float32, whatever the model was cast to.
    deltas = head.regress(regions.to(next(head.parameters()).dtype))
    return _decode(head, rois, deltas, None, metas)


def _decode(head: BBoxHead, rois: Tensor, deltas: Tensor,
            labels: Tensor | None, metas: Sequence[dict]) -> Tensor:
    """What a head regressed, as boxes (N, 4) within their images."""
    shapes = [tuple(meta['img_shape'][:2]) for meta in metas]
    # Where the images differ in size, the upper limits come afterwards.
    same = len(set(shapes)) == 1
    meta = dict(img_shape=shapes[0] if same else (torch.inf, torch.inf))
    boxes = head.regress_by_class(rois[:, 1:], labels, deltas, meta)
    if same or not vars(head.bbox_coder).get('clip_border', True):
        return boxes
    limits = upload([[width, height] * 2 for height, width in shapes],
                    boxes)[rois[:, 0].long()]
    return torch.minimum(boxes, limits)


@MODELS.register_module()
class CenterNet2RoIHead(CascadeRoIHead):
    r"""The second stage of CenterNet2: three box heads, one mask head.

    A proposal is an object of class :math:`c` with score

    .. math:: \sqrt{p_\text{proposal}\; \frac1K \sum_k p_k(c)}

    where :math:`p_k` are the class scores of the :math:`K` stages, each on
    the boxes of the stage before (REFERENCE.md, section 2, CenterNet2).
    mmdet's ``CascadeRoIHead`` averages logits, and takes no account of the
    proposal's score. One mask head learns on the samples of the first stage
    and predicts on the final boxes; mmdet has one per stage.

    Boxes are regressed class-agnostically.

    Args:
        **kwargs: Of :class:`mmdet.CascadeRoIHead`; ``mask_roi_extractor`` and
            ``mask_head`` are one config each, not lists.

    Raises:
        ValueError: If a box head regresses per class.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        for stage, head in enumerate(self.bbox_head):
            if not head.reg_class_agnostic:
                raise ValueError(f'bbox_head[{stage}]: expected '
                                 'reg_class_agnostic=True, got False')

    def init_mask_head(self, mask_roi_extractor: dict | None,
                       mask_head: dict) -> None:
        """Build the mask head and its RoI extractor."""
        self.mask_head = ModuleList([MODELS.build(mask_head)])
        self.mask_roi_extractor = self.bbox_roi_extractor[:1]
        if mask_roi_extractor is not None:
            self.mask_roi_extractor = ModuleList(
                [MODELS.build(mask_roi_extractor)])

    def loss(self, x: tuple[Tensor], rpn_results_list: InstanceList,
             batch_data_samples: SampleList) -> dict:
        """Losses of all stages; see ``CascadeRoIHead.loss``.

        A stage that got no sample has a loss of zero that is connected to
        its parameters: under DDP every rank must reach the same ones.
        """
        losses = super().loss(x, rpn_results_list, batch_data_samples)
        for stage, head in enumerate(self.bbox_head):
            if f's{stage}.loss_cls' not in losses:
                losses[f's{stage}.loss_cls'] = sum(
                    param.sum() * 0 for param in head.parameters())
        return losses

    def mask_loss(self, stage: int, x: tuple[Tensor],
                  sampling_results: list[SamplingResult],
                  batch_gt_instances: InstanceList) -> dict:
        """Loss of the masks: in the first stage, none in the others."""
        if stage > 0:
            return dict(loss_mask={})
        return super().mask_loss(stage, x, sampling_results,
                                 batch_gt_instances)

    def predict_bbox(self,
                     x: tuple[Tensor],
                     batch_img_metas: list[dict],
                     rpn_results_list: InstanceList,
                     rcnn_test_cfg: ConfigType,
                     rescale: bool = False,
                     **kwargs) -> InstanceList:
        """Detections of each image.

        Args:
            x (tuple[Tensor]): Feature maps.
            batch_img_metas (list[dict]): ``img_shape``, and ``scale_factor``
                if ``rescale``.
            rpn_results_list (list[InstanceData]): ``bboxes`` (n, 4), absolute
                xyxy pixels of the network input, and ``scores`` (n,) in
                [0, 1].
            rcnn_test_cfg (dict): ``score_thr``, ``nms``, ``max_per_img``; None
                for every box with its scores.
            rescale (bool): Whether boxes are of the original image.

        Returns:
            list[InstanceData]: ``bboxes`` (n, 4) absolute xyxy, ``scores``,
            ``labels``.
        """
        counts = [len(proposals) for proposals in rpn_results_list]
        rois = bbox2roi([proposals.bboxes for proposals in rpn_results_list])
        if len(rois) == 0:
            return empty_instances(
                batch_img_metas,
                rois.device,
                task_type='bbox',
                num_classes=self.bbox_head[-1].num_classes,
                score_per_cls=rcnn_test_cfg is None)
        scores = 0
        for stage in range(self.num_stages):
            rois, of_stage = refine_rois(self, stage, x, rois, batch_img_metas)
            scores = scores + of_stage / self.num_stages
        likely = torch.cat([of_image.scores for of_image in rpn_results_list])
        scores = (scores * likely.clamp(min=0)[:, None]).sqrt()
        return [
            select_detections(boxes, of_image, rcnn_test_cfg,
                              meta['scale_factor'] if rescale else None)
            for boxes, of_image, meta in zip(rois[:, 1:].split(
                counts), scores.split(counts), batch_img_metas)
        ]

    def predict_mask(self,
                     x: tuple[Tensor],
                     batch_img_metas: list[dict],
                     results_list: InstanceList,
                     rescale: bool = False) -> InstanceList:
        """Add ``masks``, bool (n, H, W), to the detections of each image.

        Args:
            x (tuple[Tensor]): Feature maps.
            batch_img_metas (list[dict]): Of each image.
            results_list (list[InstanceData]): What :meth:`predict_bbox` gave
                without rescaling.
            rescale (bool): Whether boxes and masks are of the original image.
        """
        rois = bbox2roi([results.bboxes for results in results_list])
        if len(rois) == 0:
            return empty_instances(batch_img_metas, rois.device, 'mask',
                                   results_list, self.test_cfg.mask_thr_binary)
        preds = self._mask_forward(0, x, rois)['mask_preds']
        preds = preds.split([len(results) for results in results_list])
        return self.mask_head[0].predict_by_feat(preds, results_list,
                                                 batch_img_metas,
                                                 self.test_cfg, rescale)

    def forward(self, x: tuple[Tensor], rpn_results_list: InstanceList,
                batch_data_samples: SampleList) -> tuple:
        """Raw outputs: class scores and RoIs of the last stage, mask logits.

        Args:
            x (tuple[Tensor]): Feature maps.
            rpn_results_list (list[InstanceData]): Proposals.
            batch_data_samples (list[DetDataSample]): Of each image.
        """
        metas = [sample.metainfo for sample in batch_data_samples]
        rois = bbox2roi([proposals.bboxes for proposals in rpn_results_list])
        for stage in range(self.num_stages):
            rois, scores = refine_rois(self, stage, x, rois, metas)
        outputs: tuple = (scores, rois)
        if self.with_mask:
            outputs += (self._mask_forward(0, x, rois)['mask_preds'], )
        return outputs
