# Demo, row 1: boxes only, from the base detector.
_base_ = [
    '../_base_/models/zero-shot-faster-rcnn_r18-c4_small.py',
    '../_base_/datasets/openmoji_detection.py',
    '../_base_/schedules/openmoji_second_stage.py',
    '../_base_/default_runtime.py',
]
# As CLIMDetector does for the other rows.
model = dict(
    backbone=dict(norm_eval=True),
    roi_head=dict(shared_head=dict(norm_eval=True)))
# What `make demo-base` wrote, beside this file.
load_from = '{{ fileDirname }}/faster-rcnn_r18-c4_256_base.pth'
auto_scale_lr = dict(enable=False, base_batch_size=8)
