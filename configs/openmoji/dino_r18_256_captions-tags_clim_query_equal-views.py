# As dino_r18_256_captions-tags_clim_query.py, with 8
# captioned views a step: 4 whole images and the 4 tiles of a mosaic of 2x2,
# which are read anew.
_base_ = './dino_r18_256_captions-tags_clim_query.py'
_base_.clim_mosaic_dataset.pipeline = []
_base_.clim_mosaic_pipeline[2].grids = ((2, 2), )
train_dataloader = dict(
    batch_size=9,
    sampler=dict(source_ratio=[4, 4, 1]),
    dataset=dict(datasets=[
        _base_.train_dataset, _base_.clim_caption_dataset,
        dict(
            type='mmdet.MultiImageMixDataset',
            dataset=_base_.clim_mosaic_dataset,
            pipeline=_base_.clim_mosaic_pipeline[2:])
    ]))
auto_scale_lr = dict(base_batch_size=9)
