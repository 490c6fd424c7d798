# Distillation, and bags of CLIM mosaics against captions, 2 : 2 per GPU.
_base_ = './baron_r50-caffe-c4_90k_ov-coco_distillation.py'
model = dict(
    objectives=dict(bag=_base_.clim_bag_objective),
    branches=dict(mosaic=['bag']))
train_dataloader = dict(
    batch_size=4,
    sampler=dict(source_ratio=[2, 2]),
    dataset=dict(
        _delete_=True,
        type='mmdet_clim.MultiSourceDataset',
        datasets=[_base_.train_dataset, _base_.clim_mosaic_dataset]))
auto_scale_lr = dict(base_batch_size=32)
