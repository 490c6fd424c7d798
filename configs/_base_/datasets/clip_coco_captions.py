# COCO's captioned images, 32 per GPU, cut to squares of 224 pixels without a
# flip (REFERENCE.md, section 4).
_base_ = [
    '../clim/ov_coco_captions_tags.py',
    './clip_images.py',
    './coco_panoptic_regions.py',
]
captioned_images = _base_.clim_caption_dataset
captioned_images.pipeline = _base_.crop_pipeline
train_dataloader = dict(dataset=captioned_images)
max_epochs = 100
