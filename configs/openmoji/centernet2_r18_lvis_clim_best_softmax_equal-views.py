# As centernet2_r18_lvis_clim_best_softmax.py, with 14 captioned views a step:
# 6 whole images, and two mosaics of 2x2 whose tiles are read anew; half of
# both are drawn from those with a rare tag.
_base_ = './centernet2_r18_lvis_clim_best_softmax.py'
_base_.clim_mosaic_dataset.pipeline = []
_base_.clim_mosaic_pipeline[2].grids = ((2, 2), )
clim_mosaics = dict(
    type='mmdet.MultiImageMixDataset',
    pipeline=_base_.clim_mosaic_pipeline[2:])
novel_tags = dict(filter_cfg=dict(novel_tags=True))
train_dataloader = dict(
    batch_size=16,
    sampler=dict(source_ratio=[8, 3, 3, 1, 1]),
    dataset=dict(datasets=[
        _base_.train_dataset, _base_.clim_caption_dataset,
        dict(_base_.clim_caption_dataset, **novel_tags),
        dict(clim_mosaics, dataset=_base_.clim_mosaic_dataset),
        dict(
            clim_mosaics,
            dataset=dict(_base_.clim_mosaic_dataset, **novel_tags))
    ]))
auto_scale_lr = dict(base_batch_size=16)
