# Detic's CenterNet2 with a ResNet-50: CenterNet proposals on P3-P7, a cascade
# of three box heads that classify by CLIP embeddings of the class names, one
# class-agnostic mask head. REFERENCE.md, section 2 (LVIS): prompts of LVIS's
# own names, tau 50, no bias, losses of all stages alike. CenterNet2's sizes:
# Zhou et al., "Probabilistic two-stage detection", arXiv 2103.07461.
# Files may lie elsewhere: OV_LVIS_ROOT names the data set, CLIP_VIT_B_32 a
# checkpoint of CLIP ViT-B/32, RESNET50 one of the backbone. Detic starts from
# ImageNet-21k weights (Ridnik et al., arXiv 2104.10972), which have no public
# address that mmengine knows: without RESNET50 it starts from ImageNet-1k.
vocabulary = dict(
    dataset='mmdet_clim.OVLVISDataset',
    ann_file='{{$OV_LVIS_ROOT:data/lvis/}}annotations/lvis_v1_val.json')
text_encoder = dict(
    type='mmdet_clim.OpenCLIPTextEncoder',
    model='ViT-B-32-quickgelu',
    pretrained='{{$CLIP_VIT_B_32:openai}}')

box_head = dict(
    type='mmdet_clim.ZeroShotConvFCBBoxHead',
    vocabulary=vocabulary,
    classifier=dict(
        text_encoder=text_encoder,
        templates=('a {raw}', ),
        temperature=50.0,
        bias=None),
    loss_cls=dict(type='mmdet_clim.FederatedClassLoss', num_sampled=50),
    num_shared_fcs=2,
    in_channels=256,
    fc_out_channels=1024,
    roi_feat_size=7,
    reg_class_agnostic=True,
    reg_predictor_cfg=dict(type='mmdet_clim.MLPRegressor'),
    loss_bbox=dict(type='mmdet.SmoothL1Loss', beta=0.1, loss_weight=1.0))
# Boxes of 224 pixels are read from P4.
roi_extractor = dict(
    type='mmdet.SingleRoIExtractor',
    roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=0),
    out_channels=256,
    featmap_strides=[8, 16, 32],
    finest_scale=112)
proposal = dict(
    score_thr=0.0001, nms=dict(type='nms', iou_threshold=0.9), min_bbox_size=0)

model = dict(
    type='mmdet.CascadeRCNN',
    data_preprocessor=dict(
        type='mmdet.DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_mask=True,
        pad_size_divisor=32),
    backbone=dict(
        type='mmdet.ResNet',
        depth=50,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        frozen_stages=-1,
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        style='pytorch',
        init_cfg=dict(
            type='Pretrained',
            checkpoint='{{$RESNET50:torchvision://resnet50}}')),
    neck=dict(
        type='mmdet.FPN',
        in_channels=[256, 512, 1024, 2048],
        out_channels=256,
        start_level=1,
        add_extra_convs='on_output',
        relu_before_extra_convs=True,
        num_outs=5),
    rpn_head=dict(
        type='mmdet_clim.CenterNetProposalHead',
        in_channels=256,
        feat_channels=256,
        stacked_convs=4,
        conv_bias=True,  # as in the published weights, before each norm
        root_score=True,
        extra_positives=False,
        loss_cls=dict(
            type='mmdet_clim.HeatMapFocalLoss',
            alpha=0.25,
            pos_weight=0.5,
            neg_weight=0.5,
            ignore_high_fp=0.85),
        loss_bbox=dict(type='mmdet.GIoULoss', loss_weight=1.0),
        strides=[8, 16, 32, 64, 128]),
    roi_head=dict(
        type='mmdet_clim.CenterNet2RoIHead',
        num_stages=3,
        stage_loss_weights=[1, 1, 1],
        bbox_roi_extractor=roi_extractor,
        bbox_head=[
            dict(
                bbox_coder=dict(
                    type='mmdet.DeltaXYWHBBoxCoder',
                    target_means=[0., 0., 0., 0.],
                    target_stds=stds),
                **box_head)
            for stds in ([0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1],
                         [0.033, 0.033, 0.067, 0.067])
        ],
        mask_roi_extractor=dict(
            roi_extractor,
            roi_layer=dict(type='RoIAlign', output_size=14, sampling_ratio=0)),
        mask_head=dict(
            type='mmdet.FCNMaskHead',
            num_convs=4,
            in_channels=256,
            conv_out_channels=256,
            num_classes=1,
            class_agnostic=True,
            loss_mask=dict(
                type='mmdet.CrossEntropyLoss', use_mask=True,
                loss_weight=1.0))),
    train_cfg=dict(
        rpn=dict(),
        rpn_proposal=dict(nms_pre=4000, max_per_img=2000, **proposal),
        rcnn=[
            dict(
                assigner=dict(
                    type='mmdet.MaxIoUAssigner',
                    pos_iou_thr=iou,
                    neg_iou_thr=iou,
                    min_pos_iou=iou,
                    match_low_quality=False,
                    ignore_iof_thr=-1),
                sampler=dict(
                    type='mmdet.RandomSampler',
                    num=512,
                    pos_fraction=0.25,
                    neg_pos_ub=-1,
                    # The first stage's annotated boxes alone.
                    add_gt_as_proposals=stage == 0),
                mask_size=28,
                pos_weight=-1,
                debug=False) for stage, iou in enumerate((0.6, 0.7, 0.8))
        ]),
    test_cfg=dict(
        rpn=dict(nms_pre=1000, max_per_img=256, **proposal),
        rcnn=dict(
            score_thr=0.02,
            nms=dict(type='nms', iou_threshold=0.5),
            max_per_img=300,
            mask_thr_binary=0.5)))
