# Licensed under the Apache License, Version 2.0.
from typing import Callable, Sequence

import torch
from mmcv.cnn import Scale
from mmcv.ops import batched_nms, nms
from mmdet.models.dense_heads import CenterNetUpdateHead
from mmdet.utils import InstanceList
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mmdet_clim.registry import MODELS

from ..host import upload

# Of a position that is no proposal.
NONE = -1.0
# Of 3 x 3 cells around an object's centre, the one that it lies in.
CENTRE = 4


@MODELS.register_module()
class CenterNetProposalHead(CenterNetUpdateHead):
    """CenterNet as the first stage of CenterNet2: an ``rpn_head``.

    Zhou et al., "Probabilistic two-stage detection" (arXiv 2103.07461): a
    class-agnostic heat map of object centres and distances to the four sides,
    both from one tower of convolutions. The score of a proposal is the
    likelihood of an object at its centre, or the square root of that.

    What mmdet's ``CenterNetUpdateHead`` lacks for a two-stage detector: it
    predicts in units of the stride in training and in pixels otherwise, so
    that proposals decoded in training would be wrong. Here the forward pass
    is in units of the stride always, and :meth:`predict_by_feat` alone turns
    them into pixels. An image without boxes is all background; there it would
    not count at all.

    Args:
        root_score (bool): Whether a proposal's score is the square root of
            the likelihood, as published (REFERENCE.md, section 2). Limits on
            scores are on likelihoods.
        extra_positives (bool): Whether cells around an object's centre whose
            boxes fit are positives too, as in mmdet; published without.
        **kwargs: Of :class:`mmdet.CenterNetUpdateHead`. ``num_classes`` is 1,
            as in every ``rpn_head``.
    """

    def __init__(self,
                 *args,
                 root_score: bool = False,
                 extra_positives: bool = True,
                 **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.root_score = root_score
        self.extra_positives = extra_positives

    def _init_cls_convs(self) -> None:
        """The heat map has no tower of its own."""
        self.cls_convs = nn.ModuleList()

    def forward_single(self, x: Tensor, scale: Scale,
                       stride: int) -> tuple[Tensor, Tensor]:
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

    def predict_by_feat(self,
                        cls_scores: list[Tensor],
                        bbox_preds: list[Tensor],
                        score_factors: None = None,
                        batch_img_metas: Sequence[dict] = (),
                        cfg: ConfigDict | None = None,
                        rescale: bool = False,
                        with_nms: bool = True) -> InstanceList:
        """Proposals from what :meth:`forward` gave.

        The same as mmdet's, for all images of a batch at a time but for the
        suppression: the host waits once per image for it, and once for how
        many are left.

        Args:
            cls_scores (list[Tensor]): Of each level, (N, 1, H, W).
            bbox_preds (list[Tensor]): Of each level, (N, 4, H, W), in
                strides.
            score_factors (None): There are none.
            batch_img_metas (list[dict]): ``img_shape`` of each image.
            cfg (ConfigDict, optional): ``score_thr``, ``nms_pre``, ``nms``,
                ``min_bbox_size`` and ``max_per_img``. Defaults to those of
                testing.
            rescale (bool): Whether boxes are of the original image.
            with_nms (bool): Whether boxes are suppressed.

        Returns:
            list[InstanceData]: ``bboxes`` (n, 4), absolute xyxy pixels,
            ``scores`` (n,), best first, and ``labels`` (n,), zeros.
        """
        if rescale or not with_nms:
            in_pixels = [d * s for d, s in zip(bbox_preds, self.strides)]
            results = super().predict_by_feat(cls_scores, in_pixels, None,
                                              batch_img_metas, cfg, rescale,
                                              with_nms)
            for of_image in results:
                of_image.scores = self._score(of_image.scores)
            return results
        cfg = self.test_cfg if cfg is None else cfg
        scores, boxes = self._likely(cls_scores, bbox_preds, batch_img_metas,
                                     cfg)
        suppress = _suppression(cfg.nms)
        kept = [of[:cfg.max_per_img] for of in map(suppress, boxes, scores)]
        found = pad_sequence(kept, batch_first=True, padding_value=NONE)
        counts = (found[..., 4] > NONE).sum(1).cpu().tolist()
        scores = self._score(found[..., 4])
        labels = torch.zeros_like(scores, dtype=torch.long)
        return [
            InstanceData(
                bboxes=box[:n, :4], scores=score[:n], labels=zero[:n])
            for box, score, zero, n in zip(found, scores, labels, counts)
        ]

    def _score(self, likelihood: Tensor) -> Tensor:
        """What a proposal's likelihood counts as."""
        return likelihood.sqrt() if self.root_score else likelihood

    @torch.no_grad()
    def add_cls_pos_inds(
        self, flatten_points: Tensor, flatten_bbox_preds: Tensor,
        featmap_sizes: Tensor, batch_gt_instances: InstanceList
    ) -> tuple[Tensor | None, Tensor | None]:
        """Positive cells of the heat map; see ``CenterNetUpdateHead``.

        Returns:
            tuple[Tensor, Tensor]: Their rows and classes, int64 (M,); None
            and None without boxes. Without ``extra_positives``, the cell at
            the centre of each box, in each level that regresses its size.
        """
        if self.extra_positives:
            return super().add_cls_pos_inds(flatten_points, flatten_bbox_preds,
                                            featmap_sizes, batch_gt_instances)
        labels, in_level, cells, _, inside = \
            self._get_center3x3_region_index_targets(batch_gt_instances,
                                                     featmap_sizes)
        if not len(labels):
            return None, None
        positive = in_level & inside[..., CENTRE]
        return (cells[..., CENTRE][positive],
                labels[:, None].expand_as(positive)[positive])

    def _likely(self, cls_scores: list[Tensor], bbox_preds: list[Tensor],
                metas: Sequence[dict],
                cfg: ConfigDict) -> tuple[Tensor, Tensor]:
        """The best positions of each level, (N, n) and (N, n, 4).

        Those that are not likely or large enough have the score ``NONE`` and
        an empty box.
        """
        points = self.prior_generator.grid_priors(
            [logits.shape[-2:] for logits in cls_scores],
            dtype=cls_scores[0].dtype,
            device=cls_scores[0].device)
        # mmdet takes -1 for all but the last one.
        most = cfg.get('nms_pre', -1)
        best, distances, centres = [], [], []
        for logits, of_level, place, stride in zip(cls_scores, bbox_preds,
                                                   points, self.strides):
            score, order = logits.detach().flatten(1).sigmoid().sort(
                1, descending=True)
            best.append(score[:, :most])
            order = order[:, :most]
            of_level = of_level.detach().flatten(2).transpose(1, 2) * stride
            distances.append(
                of_level.gather(1, order[..., None].expand(-1, -1, 4)))
            centres.append(place[order])
        score = torch.cat(best, 1)
        limits = upload([meta['img_shape'][:2] for meta in metas], score)
        box = self.bbox_coder.decode(
            torch.cat(centres, 1), torch.cat(distances, 1), max_shape=limits)
        valid = score > cfg.get('score_thr', 0)
        if cfg.get('min_bbox_size', -1) >= 0:
            extent = box[..., 2:] - box[..., :2]
            valid = valid & (extent > cfg.min_bbox_size).all(-1)
        return (score.masked_fill(~valid, NONE),
                box.masked_fill(~valid[..., None], 0.))

    def _get_targets_single(self, gt_instances: InstanceData, points: Tensor,
                            *args, **kwargs) -> tuple[Tensor, Tensor]:
        """Targets of one image: of one without boxes, background."""
        if len(gt_instances) == 0:
            return (points.new_zeros(len(points), self.num_classes),
                    points.new_full((len(points), 4), -1))
        return super()._get_targets_single(gt_instances, points, *args,
                                           **kwargs)


def _suppression(cfg: ConfigDict) -> Callable[[Tensor, Tensor], Tensor]:
    """From boxes (n, 4) and scores (n,) to those that are left, (m, 5)."""
    if cfg.get('type',
               'nms') == 'nms' and set(cfg) <= {'type', 'iou_threshold'}:
        # Of one class there are fewer operators to start.
        return lambda boxes, scores: nms(boxes, scores, cfg.iou_threshold)[0]
    return lambda boxes, scores: batched_nms(
        boxes, scores, torch.zeros_like(scores), cfg, class_agnostic=True)[0]
