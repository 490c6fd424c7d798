# First stage of the demo: base boxes only, from scratch. Its weights are
# beside this file (`make demo-base` makes them anew).
_base_ = [
    '../_base_/models/zero-shot-faster-rcnn_r18-c4_small.py',
    '../_base_/datasets/openmoji_detection.py',
    '../_base_/default_runtime.py',
]
max_iters = 3000
train_cfg = dict(
    type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=5, norm_type=2))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(
        type='CosineAnnealingLR',
        by_epoch=False,
        begin=100,
        end=max_iters,
        eta_min_ratio=0.02),
]
auto_scale_lr = dict(enable=False, base_batch_size=8)
