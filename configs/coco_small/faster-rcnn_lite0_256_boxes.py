# Row 1: boxes only, from the base detector, which COCO_SMALL_BASE names.
_base_ = [
    '../_base_/models/zero-shot-faster-rcnn_lite0_small.py',
    '../_base_/datasets/coco_small_detection.py',
    '../_base_/schedules/openmoji_second_stage.py',
    '../_base_/default_runtime.py',
]
load_from = '{{$COCO_SMALL_BASE:work_dirs/coco_small_base/iter_2500.pth}}'
train_dataloader = dict(batch_size=4)
max_iters = 200
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = _base_.param_scheduler
param_scheduler[0].end = 10
param_scheduler[1].update(begin=10, end=max_iters)
auto_scale_lr = dict(enable=False, base_batch_size=4)
