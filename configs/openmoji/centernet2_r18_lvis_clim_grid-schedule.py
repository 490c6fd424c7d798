# Mosaics of 2 x 2, then 3 x 3, then 4 x 4, a third of the iterations each
# (docs/long_tail.md).
_base_ = './centernet2_r18_lvis_clim.py'
mosaics = _base_.clim_mosaic_dataset
mosaics.pipeline[2].grid_weights = (1, 0, 0)  # before the first phase
train_dataloader = dict(
    dataset=dict(
        datasets=[_base_.train_dataset, _base_.clim_caption_dataset, mosaics]))
custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='mmdet_clim.GridScheduleHook',
        schedule=[
            dict(begin=_base_.max_iters // 3, grids=[(3, 3)]),
            dict(begin=_base_.max_iters * 2 // 3, grids=[(4, 4)]),
        ]),
]
