# Box-supervised on the 866 base classes: where the 45k recipes start.
_base_ = [
    '../../_base_/models/detic_r50_centernet2.py',
    '../../_base_/datasets/ov_lvis_detection.py',
    '../../_base_/schedules/detic_adamw_90k.py',
    '../../_base_/default_runtime.py',
]
auto_scale_lr = dict(enable=False, base_batch_size=64)
