# Mosaics meet rare tags more often (docs/long_tail.md). A tag of the median
# frequent class is on one captioned image in 200; such images come once.
_base_ = './centernet2_r18_lvis_clim.py'
train_dataloader = dict(
    dataset=dict(datasets=[
        _base_.train_dataset, _base_.clim_caption_dataset,
        dict(
            type='ClassBalancedDataset',
            oversample_thr=0.005,
            dataset=_base_.clim_mosaic_dataset)
    ]))
