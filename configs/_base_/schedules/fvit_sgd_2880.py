# 2,880 iterations of SGD 0.36 at batch 256 (REFERENCE.md, section 5), of which
# a tenth is warm-up; the steps of the learning rate are Detectron2's
# proportions.
max_iters = 2880
train_cfg = dict(
    type='mmdet_clim.ResumableTrainLoop',
    max_iters=max_iters,
    val_interval=max_iters)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.36, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys=dict(log_temperature=dict(decay_mult=0.))),
    clip_grad=dict(max_norm=1, norm_type=2))
param_scheduler = [
    dict(
        type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=288),
    dict(
        type='MultiStepLR',
        by_epoch=False,
        begin=0,
        end=max_iters,
        milestones=[1920, 2560],
        gamma=0.1),
]
auto_scale_lr = dict(enable=False, base_batch_size=256)
