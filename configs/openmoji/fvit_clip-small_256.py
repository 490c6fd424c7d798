# F-ViT of a size that two CPU cores train, on the small CLIP that
# OPENMOJI_CLIP names: the one of clip_pretrain.py, or one that a clip_*.py has
# refined.
_base_ = [
    '../_base_/models/fvit_vit-b-16.py',
    '../_base_/datasets/openmoji_detection.py',
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
        bbox_roi_extractor=dict(out_channels=64),
        bbox_head=dict(
            classifier=dict(
                text_encoder=clip, templates=('a picture of a {}.', )),
            norm_cfg=norm,
            in_channels=64,
            conv_out_channels=64,
            fc_out_channels=256)),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=600, max_per_img=200),
        rcnn=dict(sampler=dict(num=64))),
    test_cfg=dict(rpn=dict(nms_pre=600, max_per_img=150)))

max_iters = 1000
train_cfg = dict(
    type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(custom_keys=dict(log_temperature=dict(decay_mult=0.))),
    clip_grad=dict(max_norm=5, norm_type=2))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        by_epoch=False,
        begin=50,
        end=max_iters,
        eta_min_ratio=0.02),
]
auto_scale_lr = dict(enable=False, base_batch_size=8)
