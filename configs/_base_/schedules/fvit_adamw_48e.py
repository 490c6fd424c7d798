# 48 epochs of AdamW 4e-4 at batch 128 (16 GPUs of 8 images), weight decay
# 0.05, gradients clipped at 35, steps at epochs 32 and 44 (REFERENCE.md,
# section 5); the rest as with 3 epochs.
_base_ = './fvit_adamw_3e.py'
max_epochs = 48
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
optim_wrapper = dict(
    optimizer=dict(lr=4e-4, weight_decay=0.05),
    clip_grad=dict(max_norm=35, norm_type=2))
param_scheduler = [
    *_base_.param_scheduler,
    dict(
        type='MultiStepLR',
        by_epoch=True,
        begin=0,
        end=max_epochs,
        milestones=[32, 44],
        gamma=0.1),
]
auto_scale_lr = dict(base_batch_size=128)
