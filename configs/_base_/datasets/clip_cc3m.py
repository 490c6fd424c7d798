# CC3M's captioned images at 1024 pixels, 32 per GPU (REFERENCE.md, section 4).
_base_ = ['../clim/ov_lvis_captions_tags.py', './coco_panoptic_regions.py']
captioned_images = dict(
    type='mmdet_clim.ImageTextDataset',
    data_root=_base_.clim_data_root,
    ann_file=_base_.clim_source.ann_file,
    data_prefix=_base_.clim_source.data_prefix,
    pipeline=[
        dict(type='mmdet_clim.LoadImageText', scale=(1024, 1024)),
        dict(type='mmdet.Resize', scale=(1024, 1024), keep_ratio=True),
        dict(type='mmdet_clim.PackRegionTextInputs', branch='captions'),
    ])
train_dataloader = dict(
    batch_size=32,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='mmdet_clim.MultiSourceSampler'),
    batch_sampler=dict(type='mmdet_clim.MultiSourceBatchSampler'),
    dataset=captioned_images)
max_epochs = 3
