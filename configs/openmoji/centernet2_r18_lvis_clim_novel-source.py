# Half of the mosaics are of images with a rare tag (docs/long_tail.md).
_base_ = './centernet2_r18_lvis_clim.py'
train_dataloader = dict(
    sampler=dict(source_ratio=[8, 2, 3, 3]),
    dataset=dict(datasets=[
        _base_.train_dataset, _base_.clim_caption_dataset,
        _base_.clim_mosaic_dataset,
        dict(_base_.clim_mosaic_dataset, filter_cfg=dict(novel_tags=True))
    ]))
