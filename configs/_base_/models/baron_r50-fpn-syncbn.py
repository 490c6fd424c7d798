# BARON's Faster R-CNN with an FPN on OV-COCO: six pseudo-words of a region,
# and scores of objects from a tower on detached features (REFERENCE.md,
# section 3).
_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    './baron_fpn_parts.py',
]
model = dict(
    backbone=_base_.baron_backbone,
    neck=dict(norm_cfg=_base_.baron_norm),
    rpn_head=dict(type='mmdet_clim.ObjectnessTowerRPNHead'),
    roi_head=dict(
        bbox_head=dict(
            _delete_=True,
            vocabulary=dict(dataset='mmdet_clim.OVCoco80Dataset'),
            classifier=dict(num_words=6, **_base_.baron_classifier),
            **_base_.baron_box_head)),
    test_cfg=dict(rcnn=dict(score_thr=0.0001)))
