# BARON without captions and distillation: boxes of the 48 base classes alone,
# from ImageNet.
_base_ = [
    '../../_base_/models/baron_r50-caffe-c4.py',
    '../../_base_/datasets/ov_coco_detection.py',
    '../../_base_/schedules/detic_90k.py',
    '../../_base_/default_runtime.py',
]
auto_scale_lr = dict(enable=False, base_batch_size=16)
