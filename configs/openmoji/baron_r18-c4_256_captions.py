# BARON: boxes, and bags of regions of captioned images.
_base_ = [
    './baron_r18-c4_256_boxes.py',
    '../_base_/clim/openmoji_bags.py',
]
model = dict(
    _delete_=True,
    type='mmdet_clim.CLIMDetector',
    detector=_base_.model,
    objectives=dict(bag=_base_.clim_bag_objective),
    text_encoder=_base_.clim_text_encoder,
    branches=dict(captions=['bag']))
train_dataloader = dict(
    _delete_=True,
    batch_size=16,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='mmdet_clim.MultiSourceSampler', source_ratio=[8, 8]),
    batch_sampler=dict(type='mmdet_clim.MultiSourceBatchSampler'),
    dataset=dict(
        type='mmdet_clim.MultiSourceDataset',
        datasets=[_base_.train_dataset, _base_.clim_caption_dataset]))
auto_scale_lr = dict(base_batch_size=16)
