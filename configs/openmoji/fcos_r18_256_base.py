# First stage of the dense detector: boxes of the base classes. Its backbone
# starts from that of faster-rcnn_r18-c4_256_base.py, the rest from scratch.
_base_ = [
    '../_base_/models/zero-shot-fcos_r18_small.py',
    '../_base_/datasets/openmoji_detection.py',
    '../_base_/schedules/openmoji_first_stage.py',
    '../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='{{ fileDirname }}/faster-rcnn_r18-c4_256_base.pth',
            prefix='backbone.')))
max_iters = 1500
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1))))
param_scheduler = _base_.param_scheduler
param_scheduler[1].end = max_iters
auto_scale_lr = dict(enable=False, base_batch_size=8)
