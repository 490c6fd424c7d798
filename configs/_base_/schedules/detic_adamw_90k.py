# 90k iterations of AdamW 1e-4 (REFERENCE.md, section 1), the learning rate
# warmed up and then along a cosine, norms without decay. Published with AMP:
# --amp.
train_cfg = dict(
    type='mmdet_clim.ResumableTrainLoop', max_iters=90000, val_interval=90000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-4),
    paramwise_cfg=dict(norm_decay_mult=0.0),
    clip_grad=dict(max_norm=1, norm_type=2))
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=0.0001,
        by_epoch=False,
        begin=0,
        end=10000),
    dict(
        type='CosineAnnealingLR',
        by_epoch=False,
        begin=10000,
        end=90000,
        eta_min=0),
]
