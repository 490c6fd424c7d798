# First stage of the demo: base boxes only, from scratch. Its weights are
# beside this file (`make demo-base` makes them anew).
_base_ = [
    '../_base_/models/zero-shot-faster-rcnn_r18-c4_small.py',
    '../_base_/datasets/openmoji_detection.py',
    '../_base_/schedules/openmoji_first_stage.py',
    '../_base_/default_runtime.py',
]
auto_scale_lr = dict(enable=False, base_batch_size=8)
