# Mosaics meet rare tags more often (docs/long_tail.md): repeat factors of
# Gupta et al., "LVIS", CVPR 2019, with the threshold that the boxes have.
_base_ = './detic_r50-centernet2_45k_ov-lvis_captions-tags_clim.py'
train_dataloader = dict(
    dataset=dict(datasets=[
        _base_.train_dataset, _base_.clim_caption_dataset,
        dict(
            type='ClassBalancedDataset',
            oversample_thr=0.001,
            dataset=_base_.clim_mosaic_dataset)
    ]))
