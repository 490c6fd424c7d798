# Captions and tags of whole images, and half of the boxed images as mosaics:
# mosaics as mere augmentation, without CLIM.
_base_ = './whole-images.py'
boxes = _base_.train_dataset
boxes.pipeline = [
    *_base_.train_pipeline[:2],
    dict(type='mmdet.CachedMosaic', img_scale=(128, 128), prob=0.5),
    *_base_.train_pipeline[2:],
]
train_dataloader = dict(
    dataset=dict(datasets=[boxes, _base_.clim_caption_dataset]))
