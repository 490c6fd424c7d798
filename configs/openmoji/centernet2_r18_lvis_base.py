# First stage on LVIS-like data: boxes and masks of the frequent and common
# classes, from scratch, all parts at one rate.
_base_ = [
    '../_base_/models/detic_r18_centernet2_small.py',
    '../_base_/datasets/openmoji_lvis_detection.py',
    '../_base_/schedules/openmoji_second_stage.py',
    '../_base_/default_runtime.py',
]
max_iters = 1200
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
optim_wrapper = dict(paramwise_cfg=dict(_delete_=True))
param_scheduler = _base_.param_scheduler
param_scheduler[1].end = max_iters
auto_scale_lr = dict(enable=False, base_batch_size=8)
