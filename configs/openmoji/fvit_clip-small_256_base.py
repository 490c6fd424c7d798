# F-ViT of a size that two CPU cores train, boxes of the base classes, from
# scratch on the small CLIP of clip_pretrain.py that OPENMOJI_CLIP names. Every
# fvit_clip-small_256.py starts from what this has trained.
_base_ = [
    '../_base_/models/fvit_vit-b-16.py',
    '../_base_/datasets/openmoji_detection.py',
    '../_base_/schedules/openmoji_first_stage.py',
    '../_base_/default_runtime.py',
]
clip = dict(
    model='{{ fileDirname }}/open_clip_small.json',
    pretrained='{{$OPENMOJI_CLIP:work_dirs/clip_pretrain/open_clip.pt}}')
norm = dict(type='GN', num_groups=8)
model = dict(
    backbone=dict(taps=(0, 1, 2, 3), norm_cfg=norm, **clip),
    neck=dict(
        in_channels=[128, 128, 128, 128], out_channels=64, norm_cfg=norm),
    rpn_head=dict(in_channels=64, feat_channels=64),
    roi_head=dict(
        # 0.75 of the multiplier that this CLIP has learned (16.75), as 75 is
        # of that of OpenAI's (100).
        clip_temperature=12.5,
        bbox_roi_extractor=dict(
            roi_layer=dict(sampling_ratio=2), out_channels=64),
        bbox_head=dict(
            vocabulary=dict(dataset='mmdet_clim.OVCocoDataset'),
            classifier=dict(
                text_encoder=clip,
                templates=('a picture of a {}.', ),
                temperature=20.0),
            # A head that learns within minutes.
            num_shared_convs=0,
            num_shared_fcs=1,
            num_cls_fcs=0,
            num_reg_fcs=0,
            in_channels=64,
            fc_out_channels=256)),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=600, max_per_img=200),
        rcnn=dict(sampler=dict(num=64))),
    test_cfg=dict(
        rpn=dict(nms_pre=600, max_per_img=150),
        rcnn=dict(score_thr=0.0001, nms=dict(iou_threshold=0.5))))

max_iters = 1500
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(log_temperature=dict(decay_mult=0.))))
param_scheduler = _base_.param_scheduler
param_scheduler[0].end = 50
param_scheduler[1].update(begin=50, end=max_iters)
auto_scale_lr = dict(enable=False, base_batch_size=8)
