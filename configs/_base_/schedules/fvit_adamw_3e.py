# 3 epochs of AdamW 1e-4 at batch 64 (REFERENCE.md, section 5). Of warm-up,
# decay and weight decay it says nothing: the steps of the learning rate are
# Detectron2's proportions, the weight decay is that of section 4.
max_epochs = 3
train_cfg = dict(
    type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.1),
    paramwise_cfg=dict(
        norm_decay_mult=0.,
        bias_decay_mult=0.,
        custom_keys=dict(log_temperature=dict(decay_mult=0.))),
    clip_grad=dict(max_norm=1, norm_type=2))
param_scheduler = [
    dict(
        type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=250),
    dict(
        type='MultiStepLR',
        by_epoch=True,
        begin=0,
        end=max_epochs,
        milestones=[2],
        gamma=0.1),
]
auto_scale_lr = dict(enable=False, base_batch_size=64)
