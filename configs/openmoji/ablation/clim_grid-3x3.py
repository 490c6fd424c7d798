# CLIM with 3x3 mosaics alone.
_base_ = './clim_default.py'
mosaics = _base_.clim_mosaic_dataset
mosaics.pipeline[2].grids = ((3, 3), )
train_dataloader = dict(
    dataset=dict(
        datasets=[_base_.train_dataset, _base_.clim_caption_dataset, mosaics]))
