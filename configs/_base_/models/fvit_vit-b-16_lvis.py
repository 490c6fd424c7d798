# F-ViT with the constants of OV-LVIS (REFERENCE.md, section 5): alpha 0.35,
# beta 0.65, tau 50, background weight 0.9, NAS-FPN x 7, class-agnostic masks,
# and a score of 0.0001, NMS 0.5 and 300 boxes of more proposals at test.
_base_ = './fvit_vit-b-16.py'
vocabulary = dict(
    dataset='mmdet_clim.OVLVISDataset',
    ann_file='{{$OV_LVIS_ROOT:data/lvis/}}annotations/lvis_v1_val.json')
model = dict(
    neck=dict(type='mmdet.NASFPN', stack_times=7),
    roi_head=dict(
        alpha=0.35,
        beta=0.65,
        clip_temperature=50.0,
        bbox_head=dict(
            vocabulary=vocabulary, loss_cls=dict(background_weight=0.9)),
        mask_roi_extractor=dict(
            type='mmdet.SingleRoIExtractor',
            roi_layer=dict(type='RoIAlign', output_size=14, sampling_ratio=0),
            out_channels=256,
            featmap_strides=[4, 8, 16, 32]),
        mask_head=dict(
            type='mmdet.FCNMaskHead',
            num_convs=4,
            in_channels=256,
            conv_out_channels=256,
            norm_cfg=_base_.norm,
            num_classes=1,
            class_agnostic=True,
            loss_mask=dict(
                type='mmdet.CrossEntropyLoss', use_mask=True,
                loss_weight=1.0))),
    test_cfg=dict(
        rpn=dict(nms_pre=2000),
        rcnn=dict(
            score_thr=0.0001, nms=dict(iou_threshold=0.5), max_per_img=300)))
