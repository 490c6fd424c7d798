# BARON without captions and distillation: boxes of the 48 base classes alone,
# from SoCo's weights.
_base_ = [
    '../../_base_/models/baron_r50-fpn-syncbn.py',
    '../../_base_/datasets/ov_coco_detection_ms.py',
    '../../_base_/schedules/baron_fpn_90k.py',
    '../../_base_/default_runtime.py',
]
auto_scale_lr = dict(enable=False, base_batch_size=32)
