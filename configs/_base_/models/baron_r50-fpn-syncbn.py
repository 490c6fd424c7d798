# BARON's Faster R-CNN on OV-COCO. REFERENCE.md, section 3: tau 25, b from -20.
_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    './baron_fpn_parts.py',
]
model = dict(
    backbone=_base_.baron_backbone,
    neck=dict(norm_cfg=_base_.baron_norm),
    roi_head=dict(
        bbox_head=dict(
            _delete_=True,
            vocabulary=dict(dataset='mmdet_clim.OVCoco80Dataset'),
            classifier=dict(
                temperature=25.0, bias=-20.0, **_base_.baron_classifier),
            **_base_.baron_box_head)),
    # A sigmoid score of an open vocabulary starts near 0.
    test_cfg=dict(rcnn=dict(score_thr=0.0001)))
