# OV-COCO in squares of 640 pixels, 8 images per GPU, by epochs (REFERENCE.md,
# section 5).
_base_ = ['./ov_coco_detection.py', './fvit_squares_640.py']
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmdet.LoadAnnotations', with_bbox=True),
    *_base_.large_scale_jitter,
    dict(type='mmdet.PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    *_base_.test_squares,
    dict(type='mmdet.LoadAnnotations', with_bbox=True),
    dict(
        type='mmdet.PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                   'scale_factor')),
]
train_dataset = dict(pipeline=train_pipeline)
train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    # All are squares.
    sampler=dict(aspect_grouping=False),
    dataset=train_dataset)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
