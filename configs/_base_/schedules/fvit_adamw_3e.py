# 3 epochs of AdamW 1e-4 at batch 64, weight decay 0.1, 250 iterations of warm-
# up and no further step (REFERENCE.md, section 5).
max_epochs = 3
train_cfg = dict(
    type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.1),
    # The published heads learn tau, these its logarithm, from 50 on: of
    # AdamW's steps, which have one size, 1/50 moves it as far.
    paramwise_cfg=dict(
        custom_keys=dict(log_temperature=dict(lr_mult=1 / 50, decay_mult=0.))))
param_scheduler = [
    dict(
        type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=250),
]
auto_scale_lr = dict(enable=False, base_batch_size=64)
