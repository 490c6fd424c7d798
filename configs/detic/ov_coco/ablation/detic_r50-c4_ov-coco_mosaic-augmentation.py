# Captions and tags of whole images, and half of the boxed images as mosaics
# of the size of CLIM's: mosaics as mere augmentation, without CLIM. mmdet's
# CachedMosaic is its Mosaic with partners from a cache.
_base_ = '../detic_r50-caffe-c4_45k_ov-coco_captions-tags.py'
boxes = _base_.train_dataset
boxes.pipeline = [
    *_base_.train_pipeline[:2],
    dict(type='mmdet.CachedMosaic', img_scale=(400, 400), prob=0.5),
    *_base_.train_pipeline[2:],
]
train_dataloader = dict(
    dataset=dict(datasets=[boxes, _base_.clim_caption_dataset]))
