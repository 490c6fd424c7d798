# First stage: boxes of the base classes, on a frozen EfficientNet-Lite0.
_base_ = [
    '../_base_/models/zero-shot-faster-rcnn_lite0_small.py',
    '../_base_/datasets/coco_small_detection.py',
    '../_base_/schedules/openmoji_first_stage.py',
    '../_base_/default_runtime.py',
]
max_iters = 2500
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = _base_.param_scheduler
param_scheduler[0].end = 50
param_scheduler[1].update(begin=50, end=max_iters)
auto_scale_lr = dict(enable=False, base_batch_size=8)
