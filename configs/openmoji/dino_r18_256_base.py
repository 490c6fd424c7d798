# First stage of the zero-shot DINO: boxes of the base classes. Its backbone is
# that of faster-rcnn_r18-c4_256_base.py, frozen, the rest starts from scratch.
_base_ = [
    '../_base_/models/zero-shot-dino_r18_small.py',
    '../_base_/datasets/openmoji_detection.py',
    '../_base_/schedules/openmoji_first_stage.py',
    '../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(
        frozen_stages=3,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='{{ fileDirname }}/faster-rcnn_r18-c4_256_base.pth',
            prefix='backbone.')))
max_iters = 2000
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = _base_.param_scheduler
param_scheduler[1].end = max_iters
optim_wrapper = dict(
    optimizer=dict(lr=4e-4, weight_decay=1e-4), clip_grad=dict(max_norm=1))
auto_scale_lr = dict(enable=False, base_batch_size=8)
