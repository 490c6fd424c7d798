# As demo_clim_best_softmax.py, with mosaics of 2x2 whose tiles are read anew.
# A cache of the last images gives a step six new ones for about 39 tiles; here
# its 24 tiles are any of all captioned images, each read at its size.
_base_ = './demo_clim_best_softmax.py'
_base_.clim_mosaic_dataset.pipeline = []
_base_.clim_mosaic_pipeline[2].grids = ((2, 2), )
train_dataloader = dict(
    dataset=dict(datasets=[
        _base_.train_dataset, _base_.clim_caption_dataset,
        dict(
            type='mmdet.MultiImageMixDataset',
            dataset=_base_.clim_mosaic_dataset,
            pipeline=_base_.clim_mosaic_pipeline[2:])
    ]))
