# Captions and distillation, and bags of CLIM mosaics, 2 : 2 : 2 per GPU.
_base_ = './baron_r50-caffe-c4_90k_ov-coco_captions-distillation.py'
model = dict(branches=dict(mosaic=['bag']))
train_dataloader = dict(
    batch_size=6,
    sampler=dict(source_ratio=[2, 2, 2]),
    dataset=dict(datasets=[
        _base_.train_dataset, _base_.clim_caption_dataset,
        _base_.clim_mosaic_dataset
    ]))
auto_scale_lr = dict(base_batch_size=48)
