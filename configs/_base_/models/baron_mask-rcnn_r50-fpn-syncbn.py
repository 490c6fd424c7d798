# BARON's Mask R-CNN on OV-LVIS: four pseudo-words of a region, mmdet's RPN,
# and one class-agnostic mask per object, as its checkpoint has them.
# OV_LVIS_ROOT names the data set.
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    './baron_fpn_parts.py',
]
model = dict(
    backbone=_base_.baron_backbone,
    neck=dict(norm_cfg=_base_.baron_norm),
    roi_head=dict(
        bbox_head=dict(
            _delete_=True,
            vocabulary=dict(
                dataset='mmdet_clim.OVLVISDataset',
                ann_file='{{$OV_LVIS_ROOT:data/lvis/}}'
                'annotations/lvis_v1_val.json'),
            classifier=dict(num_words=4, **_base_.baron_classifier),
            **_base_.baron_box_head),
        mask_head=dict(
            norm_cfg=_base_.baron_norm, num_classes=1, class_agnostic=True)),
    test_cfg=dict(rcnn=dict(score_thr=0.0001, max_per_img=300)))
