# 45k iterations of AdamW 2e-4 from the box-supervised weights (REFERENCE.md,
# section 1), with a shorter warm-up.
_base_ = './detic_adamw_90k.py'
train_cfg = dict(max_iters=45000, val_interval=45000)
param_scheduler = [
    dict(
        type='LinearLR', start_factor=0.001, by_epoch=False, begin=0,
        end=1000),
    dict(
        type='CosineAnnealingLR',
        by_epoch=False,
        begin=1000,
        end=45000,
        eta_min=0),
]
