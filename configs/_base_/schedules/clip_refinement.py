# AdamW 1e-5, betas 0.9 and 0.98, eps 1e-6, weight decay 0.1, 1000 iterations
# of warm-up, cosine (REFERENCE.md, section 4); norms, biases and the logit
# scale have no decay (Radford et al., CLIP, 2021). By epochs; a config says
# how many.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=100, val_interval=100)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(
        type='AdamW', lr=1e-5, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.1),
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
# 4 GPUs of 32 images.
auto_scale_lr = dict(enable=False, base_batch_size=128)
