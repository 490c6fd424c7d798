# Licensed under the Apache License, Version 2.0.
from typing import List

import torch
from mmdet.models.dense_heads import CascadeRPNHead
from mmdet.models.detectors import TwoStageDetector
from mmengine.structures import InstanceData

from .features import ExtractedImages


@torch.no_grad()
def rpn_proposals(detector: TwoStageDetector,
                  feats: ExtractedImages) -> List[InstanceData]:
    """Proposals of a detector's first stage, as many as training draws from.

    Of a Cascade RPN, as many as it predicts.

    Args:
        detector (TwoStageDetector): With an ``rpn_head``.
        feats (ExtractedImages): The images.

    Returns:
        list[InstanceData]: ``bboxes`` (n, 4), absolute xyxy pixels of the
        network input, and ``scores`` (n,) in descending order.
    """
    rpn_head = detector.rpn_head
    levels = feats.levels
    if isinstance(rpn_head, CascadeRPNHead):
        # Its stages move the anchors by turns: it has no forward of its own.
        with torch.autocast(levels[0].device.type, enabled=False):
            return rpn_head.predict([level.float() for level in levels],
                                    feats.samples())
    # mmcv's NMS takes no bfloat16, which autocast may give.
    outputs = [[level.float() for level in maps] for maps in rpn_head(levels)]
    return rpn_head.predict_by_feat(
        *outputs,
        batch_img_metas=feats.metas,
        cfg=detector.train_cfg.get('rpn_proposal', detector.test_cfg.rpn),
        rescale=False)
