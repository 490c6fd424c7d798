# OV-LVIS in squares of 1024 pixels, 8 images per GPU (REFERENCE.md, section
# 5).
_base_ = ['./ov_lvis_detection.py', './fvit_squares_1024.py']
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=True),
    *_base_.large_scale_jitter,
    dict(type='mmdet.PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    *_base_.test_squares,
    dict(
        type='mmdet.PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                   'scale_factor')),
]
train_dataset = dict(dataset=dict(pipeline=train_pipeline))
train_dataloader = dict(batch_size=8, dataset=train_dataset)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
