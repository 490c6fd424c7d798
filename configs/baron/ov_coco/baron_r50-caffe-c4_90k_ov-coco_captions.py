# Boxes, and bags of regions of captioned images, 2 : 2 per GPU: one stage from
# ImageNet, on 8 GPUs.
_base_ = [
    '../../_base_/models/baron_r50-caffe-c4.py',
    '../../_base_/datasets/ov_coco_detection.py',
    '../../_base_/schedules/detic_90k.py',
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
    sampler=dict(source_ratio=[2, 2]),
    dataset=dict(
        _delete_=True,
        type='mmdet_clim.MultiSourceDataset',
        datasets=[_base_.train_dataset, _base_.clim_caption_dataset]))
auto_scale_lr = dict(enable=False, base_batch_size=32)
