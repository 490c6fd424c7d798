# Large-scale jitter to squares of 1024 pixels, and test images in such squares
# (REFERENCE.md, section 5). A fragment: pipelines are put together of these.
square = dict(
    type='mmdet.Pad',
    size=(1024, 1024),
    # CLIP's mean, BGR.
    pad_val=dict(img=(104, 117, 123)))
large_scale_jitter = [
    dict(
        type='RandomResize',
        scale=(1024, 1024),
        ratio_range=(0.1, 2.0),
        resize_type='mmdet.Resize',
        keep_ratio=True),
    dict(
        type='mmdet.RandomCrop',
        crop_type='absolute',
        crop_size=(1024, 1024),
        recompute_bbox=True,
        allow_negative_crop=True),
    dict(
        type='mmdet.FilterAnnotations',
        min_gt_bbox_wh=(0.01, 0.01),
        keep_empty=False),
    square,
    dict(type='mmdet.RandomFlip', prob=0.5),
]
test_squares = [
    dict(type='mmdet.Resize', scale=(1024, 1024), keep_ratio=True),
    square,
]
