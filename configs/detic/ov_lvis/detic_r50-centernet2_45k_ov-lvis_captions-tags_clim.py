# Boxes, captions, tags, and CLIM mosaics with both, 8 : 16 : 16 per GPU.
_base_ = './detic_r50-centernet2_45k_ov-lvis_captions-tags.py'
model = dict(branches=dict(mosaic=['caption', 'tag']))
train_dataloader = dict(
    batch_size=40,
    sampler=dict(source_ratio=[8, 16, 16]),
    dataset=dict(datasets=[
        _base_.train_dataset, _base_.clim_caption_dataset,
        _base_.clim_mosaic_dataset
    ]))
auto_scale_lr = dict(base_batch_size=320)
