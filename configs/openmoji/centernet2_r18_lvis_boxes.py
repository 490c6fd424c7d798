# Second stage on LVIS-like data, boxes and masks alone: what CLIM is compared
# with.
_base_ = [
    '../_base_/models/detic_r18_centernet2_small.py',
    '../_base_/datasets/openmoji_lvis_detection.py',
    '../_base_/schedules/openmoji_second_stage.py',
    '../_base_/default_runtime.py',
]
max_iters = 300
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = _base_.param_scheduler
param_scheduler[0].end = 20
param_scheduler[1].update(begin=20, end=max_iters)
# As CLIMDetector does for the other rows.
model = dict(backbone=dict(norm_eval=True))
auto_scale_lr = dict(enable=False, base_batch_size=8)
load_from = 'work_dirs/centernet2_r18_lvis_base/iter_1200.pth'
