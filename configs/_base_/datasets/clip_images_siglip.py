# How SigLIP sees images: its mean colour is grey, and its own evaluation
# squashes whole images to squares. A config puts these pipelines in the place
# of CLIP's.
own_region_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmdet_clim.LoadPanopticRegions'),
    dict(
        type='mmdet.Resize',
        scale=(1024, 1024),
        keep_ratio=True,
        interpolation='bicubic'),
    dict(
        type='mmdet.Pad',
        size=(1024, 1024),
        pad_val=dict(img=(127.5, 127.5, 127.5))),
    dict(
        type='mmdet_clim.FilterRegionsByArea',
        min_area=64**2,
        max_area=1024**2,
        max_regions=100),
    dict(type='mmdet.PackDetInputs'),
]
own_retrieval_pipeline = [
    dict(type='mmdet_clim.LoadImageText'),
    dict(
        type='mmdet.Resize',
        scale=(224, 224),
        keep_ratio=False,
        interpolation='bicubic'),
    dict(type='mmdet_clim.PackRegionTextInputs', branch='captions'),
]
