# Mosaics of 2 x 2, then 3 x 3, then 4 x 4, a third of the iterations each
# (docs/long_tail.md).
_base_ = './detic_r50-centernet2_45k_ov-lvis_captions-tags_clim.py'
train_dataloader = dict(
    dataset=dict(datasets=[
        _base_.train_dataset,
        _base_.clim_caption_dataset,
        dict(
            pipeline=[
                *_base_.clim_image_pipeline,
                # Before the first phase of the schedule.
                dict(grid_weights=(1, 0, 0), **_base_.clim_mosaic),
                dict(type='mmdet_clim.PackRegionTextInputs', branch='mosaic'),
            ],
            **_base_.clim_source)
    ]))
custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='mmdet_clim.GridScheduleHook',
        schedule=[
            dict(begin=15000, grids=[(3, 3)]),
            dict(begin=30000, grids=[(4, 4)]),
        ]),
]
