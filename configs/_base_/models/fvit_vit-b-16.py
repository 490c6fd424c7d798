# F-ViT on CLIP's ViT-B/16 (REFERENCE.md, section 5), with the constants of
# OV-COCO: alpha 0.1, beta 0.8, tau 75, background weight 0.6, FPN, and a score
# of 0.01, NMS 0.4 and 100 boxes at test.
# CLIP_VIT_B_16 names a checkpoint of CLIP, or open_clip's name of it.
vocabulary = dict(dataset='mmdet_clim.OVCoco80Dataset')
clip = dict(model='ViT-B-16-quickgelu', pretrained='{{$CLIP_VIT_B_16:openai}}')
text_encoder = dict(type='mmdet_clim.OpenCLIPTextEncoder', **clip)
norm = dict(type='SyncBN', requires_grad=True)
proposal = dict(nms=dict(type='nms', iou_threshold=0.7), min_bbox_size=0)

model = dict(
    type='mmdet_clim.FViT',
    data_preprocessor=dict(
        type='mmdet.DetDataPreprocessor',
        # CLIP's.
        mean=[122.7709383, 116.7460125, 104.09373615],
        std=[68.5005327, 66.6321579, 70.32316305],
        bgr_to_rgb=True,
        pad_mask=True,
        pad_size_divisor=64),
    backbone=dict(
        type='mmdet_clim.OpenCLIPViT',
        mode='value',
        taps=(3, 5, 7, 11),
        norm_cfg=norm,
        **clip),
    neck=dict(
        type='mmdet.FPN',
        in_channels=[768, 768, 768, 768],
        out_channels=256,
        norm_cfg=norm,
        num_outs=5),
    rpn_head=dict(
        type='mmdet.RPNHead',
        in_channels=256,
        feat_channels=256,
        num_convs=2,
        anchor_generator=dict(
            type='mmdet.AnchorGenerator',
            scales=[8],
            ratios=[0.5, 1.0, 2.0],
            strides=[4, 8, 16, 32, 64]),
        bbox_coder=dict(
            type='mmdet.DeltaXYWHBBoxCoder',
            target_means=[.0, .0, .0, .0],
            target_stds=[1.0, 1.0, 1.0, 1.0]),
        loss_cls=dict(
            type='mmdet.CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0),
        loss_bbox=dict(type='mmdet.L1Loss', loss_weight=1.0)),
    roi_head=dict(
        type='mmdet_clim.FViTRoIHead',
        alpha=0.1,
        beta=0.8,
        clip_temperature=75.0,
        bbox_roi_extractor=dict(
            type='mmdet.SingleRoIExtractor',
            roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=0),
            out_channels=256,
            featmap_strides=[4, 8, 16, 32]),
        bbox_head=dict(
            type='mmdet_clim.ZeroShotConvFCBBoxHead',
            vocabulary=vocabulary,
            classifier=dict(
                type='mmdet_clim.SoftmaxZeroShotClassifier',
                text_encoder=text_encoder,
                templates='vild',
                temperature=50.0),
            loss_cls=dict(
                type='mmdet_clim.BaseClassSoftmaxLoss', background_weight=0.6),
            num_shared_convs=4,
            num_shared_fcs=2,
            num_cls_fcs=1,
            num_reg_fcs=1,
            norm_cfg=norm,
            in_channels=256,
            conv_out_channels=256,
            fc_out_channels=1024,
            roi_feat_size=7,
            reg_class_agnostic=True,
            bbox_coder=dict(
                type='mmdet.DeltaXYWHBBoxCoder',
                target_means=[0., 0., 0., 0.],
                target_stds=[0.1, 0.1, 0.2, 0.2]),
            loss_bbox=dict(type='mmdet.L1Loss', loss_weight=1.0))),
    train_cfg=dict(
        rpn=dict(
            assigner=dict(
                type='mmdet.MaxIoUAssigner',
                pos_iou_thr=0.7,
                neg_iou_thr=0.3,
                min_pos_iou=0.3,
                match_low_quality=True,
                ignore_iof_thr=-1),
            sampler=dict(
                type='mmdet.RandomSampler',
                num=256,
                pos_fraction=0.5,
                neg_pos_ub=-1,
                add_gt_as_proposals=False),
            allowed_border=-1,
            pos_weight=-1,
            debug=False),
        rpn_proposal=dict(nms_pre=2000, max_per_img=1000, **proposal),
        rcnn=dict(
            assigner=dict(
                type='mmdet.MaxIoUAssigner',
                pos_iou_thr=0.5,
                neg_iou_thr=0.5,
                min_pos_iou=0.5,
                match_low_quality=False,
                ignore_iof_thr=-1),
            sampler=dict(
                type='mmdet.RandomSampler',
                num=512,
                pos_fraction=0.25,
                neg_pos_ub=-1,
                add_gt_as_proposals=True),
            mask_size=28,
            pos_weight=-1,
            debug=False)),
    test_cfg=dict(
        rpn=dict(nms_pre=1000, max_per_img=1000, **proposal),
        rcnn=dict(
            score_thr=0.01,
            nms=dict(type='nms', iou_threshold=0.4),
            max_per_img=100,
            mask_thr_binary=0.5)))
