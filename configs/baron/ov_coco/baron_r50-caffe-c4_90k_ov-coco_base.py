# BARON without captions: box-supervised on the 48 base classes. Where the 45k
# recipes start.
_base_ = [
    '../../_base_/models/baron_r50-caffe-c4.py',
    '../../_base_/datasets/ov_coco_detection.py',
    '../../_base_/schedules/detic_90k.py',
    '../../_base_/default_runtime.py',
]
auto_scale_lr = dict(enable=False, base_batch_size=16)
