# Dense detector, boxes alone, from fcos_r18_256_base.py; its backbone frozen
# as in the demo.
_base_ = [
    '../_base_/models/zero-shot-fcos_r18_small.py',
    '../_base_/datasets/openmoji_detection.py',
    '../_base_/schedules/openmoji_second_stage.py',
    '../_base_/default_runtime.py',
]
model = dict(backbone=dict(frozen_stages=3))
train_dataloader = dict(batch_size=4)
auto_scale_lr = dict(enable=False, base_batch_size=4)
max_iters = 300
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
optim_wrapper = dict(paramwise_cfg=dict(_delete_=True))
param_scheduler = _base_.param_scheduler
param_scheduler[1].end = max_iters
load_from = '{{$OPENMOJI_FCOS:work_dirs/fcos_r18_256_base/iter_1500.pth}}'
