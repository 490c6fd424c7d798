# Boxes, and bags of regions of captioned images, 2 : 2 per GPU: one stage from
# SoCo's weights, on 16 GPUs.
_base_ = [
    '../../_base_/models/baron_r50-fpn-syncbn.py',
    '../../_base_/datasets/ov_coco_detection_ms.py',
    '../../_base_/schedules/baron_fpn_90k.py',
    '../../_base_/clim/ov_coco_bags_fpn.py',
    '../../_base_/default_runtime.py',
]
model = dict(
    _delete_=True,
    type='mmdet_clim.CLIMDetector',
    detector=_base_.model,
    norm_eval=False,
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
auto_scale_lr = dict(enable=False, base_batch_size=64)
