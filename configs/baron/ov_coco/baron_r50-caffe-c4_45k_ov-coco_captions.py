# Boxes, and bags of regions of captioned images, 2 : 2 per GPU.
_base_ = [
    '../../_base_/models/baron_r50-caffe-c4.py',
    '../../_base_/datasets/ov_coco_detection.py',
    '../../_base_/schedules/detic_45k.py',
    '../../_base_/clim/ov_coco_bags.py',
    '../../_base_/default_runtime.py',
]
model = dict(
    _delete_=True,
    type='mmdet_clim.CLIMDetector',
    detector=_base_.model,
    objectives=dict(bag=_base_.clim_bag_objective),
    text_encoder=_base_.clim_text_encoder,
    branches=dict(captions=['bag']))
train_dataloader = dict(
    batch_size=4,
    sampler=dict(type='mmdet_clim.MultiSourceSampler', source_ratio=[2, 2]),
    dataset=dict(
        _delete_=True,
        type='mmdet_clim.MultiSourceDataset',
        datasets=[_base_.train_dataset, _base_.clim_caption_dataset]))
auto_scale_lr = dict(enable=False, base_batch_size=32)
load_from = \
    'work_dirs/baron_r50-caffe-c4_90k_ov-coco_base/iter_90000.pth'
