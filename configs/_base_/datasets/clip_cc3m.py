# CC3M's captioned images, 32 per GPU, cut to squares of 224 pixels without a
# flip (REFERENCE.md, section 4); all of them, with or without tags.
_base_ = [
    '../clim/ov_lvis_captions_tags.py',
    './clip_images.py',
    './coco_panoptic_regions.py',
]
captioned_images = dict(
    type='mmdet_clim.ImageTextDataset',
    data_root=_base_.clim_data_root,
    ann_file=_base_.clim_source.ann_file,
    data_prefix=_base_.clim_source.data_prefix,
    pipeline=_base_.crop_pipeline)
train_dataloader = dict(dataset=captioned_images)
max_epochs = 3
