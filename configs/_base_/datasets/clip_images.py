# How a CLIP that is refined sees its images (REFERENCE.md, section 4).
crop_pipeline = [
    dict(type='mmdet_clim.LoadImageText'),
    dict(type='mmdet_clim.RandomResizedCrop', size=224, scale=(0.9, 1.0)),
    dict(type='mmdet_clim.PackRegionTextInputs', branch='captions'),
]
# Whole images of 1024 pixels, for objectives that look at boxes in them.
whole_pipeline = [
    dict(type='mmdet_clim.LoadImageText', scale=(1024, 1024)),
    dict(type='mmdet.Resize', scale=(1024, 1024), keep_ratio=True),
    dict(type='mmdet_clim.PackRegionTextInputs', branch='captions'),
]
train_dataloader = dict(
    batch_size=32,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='mmdet_clim.MultiSourceSampler'),
    batch_sampler=dict(type='mmdet_clim.MultiSourceBatchSampler'))
