# Images of 336 pixels, the size that ViT-L/14-336 was trained at, in training
# and in retrieval. A config puts these pipelines in the place of those of 224
# pixels.
own_crop_pipeline = [
    dict(type='mmdet_clim.LoadImageText'),
    dict(type='mmdet_clim.RandomResizedCrop', size=336, scale=(0.9, 1.0)),
    dict(type='mmdet_clim.PackRegionTextInputs', branch='captions'),
]
own_retrieval_pipeline = [
    dict(type='mmdet_clim.LoadImageText'),
    dict(
        type='mmdet.Resize',
        scale=(336, 10000),
        keep_ratio=True,
        interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=336),
    dict(type='mmdet_clim.PackRegionTextInputs', branch='captions'),
]
