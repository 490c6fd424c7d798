# 2,880 iterations of SGD 0.36 at batch 256 (32 GPUs of 8 images), 250 of them
# a warm-up from 0.009, steps at 2304, 2592 and 2736 (REFERENCE.md, section 5).
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
    # The published head learns tau, this one its logarithm, from 50 on: a step
    # of gradient descent moves it as far at 1/50 of 1/50 of the rate.
    paramwise_cfg=dict(
        custom_keys=dict(
            log_temperature=dict(lr_mult=1 / 2500, decay_mult=0.))))
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=0.009 / 0.36,
        by_epoch=False,
        begin=0,
        end=250),
    dict(
        type='MultiStepLR',
        by_epoch=False,
        begin=0,
        end=max_iters,
        milestones=[2304, 2592, 2736],
        gamma=0.1),
]
auto_scale_lr = dict(enable=False, base_batch_size=256)
