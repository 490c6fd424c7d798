# A Faster R-CNN for photographs on two CPU cores: a frozen
# EfficientNet-Lite0, all its maps fused into one of stride 8, a box head of
# one hidden layer, regions classified by MiniLM embeddings of class names.
_base_ = ['./zero-shot-faster-rcnn_r18-c4_small.py', './lite0_backbone.py']
text_encoder = _base_.text_encoder
vocabulary = _base_.vocabulary
class_templates = ('a photo of a {}', )

model = dict(
    data_preprocessor=dict(
        mean=[127.5, 127.5, 127.5],
        std=[127.5, 127.5, 127.5],
        # One frame for all, so that the kept maps of a photograph serve in
        # whatever batch it is.
        pad_size_divisor=256),
    backbone=dict(_delete_=True, **_base_.frozen_lite0),
    neck=dict(
        type='mmdet_clim.FusedMap',
        in_channels=[40, 112, 320],
        out_channels=160),
    rpn_head=dict(
        in_channels=160,
        feat_channels=96,
        anchor_generator=dict(scales=[2, 4, 8, 14, 24], strides=[8])),
    roi_head=dict(
        shared_head=None,
        bbox_roi_extractor=dict(
            roi_layer=dict(output_size=3, sampling_ratio=2),
            out_channels=160,
            featmap_strides=[8]),
        bbox_head=dict(
            _delete_=True,
            type='mmdet_clim.ZeroShotConvFCBBoxHead',
            vocabulary=vocabulary,
            classifier=dict(
                text_encoder=text_encoder,
                templates=class_templates,
                bias=-10.0),
            num_shared_fcs=1,
            in_channels=160,
            fc_out_channels=512,
            roi_feat_size=3,
            reg_class_agnostic=True,
            bbox_coder=dict(
                type='mmdet.DeltaXYWHBBoxCoder',
                target_means=[0., 0., 0., 0.],
                target_stds=[0.1, 0.1, 0.2, 0.2]),
            loss_bbox=dict(type='mmdet.L1Loss', loss_weight=1.0))),
    test_cfg=dict(rpn=dict(max_per_img=100)))
