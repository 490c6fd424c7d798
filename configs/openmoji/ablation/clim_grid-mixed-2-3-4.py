# CLIM with the published grids.
_base_ = './clim_default.py'
mosaics = _base_.clim_mosaic_dataset
mosaics.pipeline[2].grids = ((2, 2), (3, 3), (4, 4))
train_dataloader = dict(
    dataset=dict(
        datasets=[_base_.train_dataset, _base_.clim_caption_dataset, mosaics]))
