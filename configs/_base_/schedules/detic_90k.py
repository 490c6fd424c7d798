# 90k iterations of SGD 0.02, gradients clipped at 35 (REFERENCE.md,
# section 1); the steps of the learning rate are Detectron2's proportions.
train_cfg = dict(
    type='mmdet_clim.ResumableTrainLoop', max_iters=90000, val_interval=90000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=1e-4),
    clip_grad=dict(max_norm=35, norm_type=2))
param_scheduler = [
    dict(
        type='LinearLR', start_factor=0.001, by_epoch=False, begin=0,
        end=1000),
    dict(
        type='MultiStepLR',
        by_epoch=False,
        begin=0,
        end=90000,
        milestones=[60000, 80000],
        gamma=0.1),
]
