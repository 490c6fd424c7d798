# BARON without captions: boxes and masks of the 866 base classes.
_base_ = [
    '../../_base_/models/baron_mask-rcnn_r50-fpn-syncbn.py',
    '../../_base_/datasets/ov_lvis_detection.py',
    '../../_base_/schedules/detic_adamw_90k.py',
    '../../_base_/default_runtime.py',
]
auto_scale_lr = dict(enable=False, base_batch_size=64)
