# AdamW 1e-5, weight decay 0.1 (norms, biases and the logit scale without),
# 1000 iterations of warm-up, cosine (REFERENCE.md, section 4). By epochs; a
# config says how many.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=100, val_interval=100)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-5, weight_decay=0.1),
    paramwise_cfg=dict(
        norm_decay_mult=0.,
        bias_decay_mult=0.,
        custom_keys=dict(
            in_proj_bias=dict(decay_mult=0.),
            log_temperature=dict(decay_mult=0.))))
param_scheduler = [
    dict(
        type='LinearLR', start_factor=0.001, by_epoch=False, begin=0,
        end=1000),
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        begin=0,
        end=100,
        eta_min=0,
        convert_to_iter_based=True),
]
# The published number of GPUs is not known; 8 of 32 images are assumed.
auto_scale_lr = dict(enable=False, base_batch_size=256)
