# The small CLIP of OpenMoji: AdamW, weight decay 0.1 (norms, biases and the
# logit scale without, as in clip_refinement.py), a short warm-up, a cosine.
max_iters = 1000
train_cfg = dict(
    type='mmdet_clim.ResumableTrainLoop',
    max_iters=max_iters,
    val_interval=max_iters)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.1),
    paramwise_cfg=dict(
        norm_decay_mult=0.,
        bias_decay_mult=0.,
        custom_keys=dict(
            in_proj_bias=dict(decay_mult=0.),
            log_temperature=dict(decay_mult=0.))))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        by_epoch=False,
        begin=50,
        end=max_iters,
        eta_min_ratio=0.01),
]
