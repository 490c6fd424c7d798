# MM-Grounding-DINO, small, at 160 pixels: boxes of the base classes. Its
# backbone starts from that of faster-rcnn_r18-c4_256_base.py, the rest from
# scratch.
_base_ = [
    '../_base_/models/mm-grounding-dino_r18_small.py',
    '../_base_/datasets/openmoji_detection.py',
    '../_base_/schedules/openmoji_first_stage.py',
    '../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='{{ fileDirname }}/faster-rcnn_r18-c4_256_base.pth',
            prefix='backbone.')))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmdet.LoadAnnotations', with_bbox=True),
    dict(type='mmdet.Resize', scale=(160, 160), keep_ratio=True),
    dict(type='mmdet.RandomFlip', prob=0.5),
    dict(type='mmdet_clim.BaseClassPrompt', vocabulary=_base_.vocabulary),
    dict(
        type='mmdet.PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                   'scale_factor', 'flip', 'flip_direction', 'text',
                   'custom_entities')),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmdet.Resize', scale=(160, 160), keep_ratio=True),
    dict(type='mmdet.LoadAnnotations', with_bbox=True),
    dict(
        type='mmdet.PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                   'scale_factor', 'text', 'custom_entities')),
]
train_dataset = dict(pipeline=train_pipeline)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(
    dataset=dict(pipeline=test_pipeline, return_classes=True))
test_dataloader = val_dataloader

optim_wrapper = dict(
    optimizer=dict(lr=4e-4, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1))),
    clip_grad=dict(max_norm=1))
auto_scale_lr = dict(enable=False, base_batch_size=8)
