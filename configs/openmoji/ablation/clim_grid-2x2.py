# CLIM with 2x2 mosaics alone.
_base_ = './clim_default.py'
mosaics = _base_.clim_mosaic_dataset
mosaics.pipeline[2].grids = ((2, 2), )
train_dataloader = dict(
    dataset=dict(
        datasets=[_base_.train_dataset, _base_.clim_caption_dataset, mosaics]))
