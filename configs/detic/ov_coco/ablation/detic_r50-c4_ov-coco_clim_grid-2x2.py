# CLIM with 2x2 mosaics alone.
_base_ = '../detic_r50-caffe-c4_45k_ov-coco_captions-tags_clim.py'
mosaics = _base_.clim_mosaic_dataset
mosaics.pipeline[3].grids = ((2, 2), )
train_dataloader = dict(
    dataset=dict(
        datasets=[_base_.train_dataset, _base_.clim_caption_dataset, mosaics]))
