# Boxes and masks of OV-LVIS's 866 base classes at 640 pixels. OV_LVIS_ROOT
# names the folder: annotations/, and COCO's train2017/ and val2017/. Rare
# classes oversample their images (Gupta et al., "LVIS", CVPR 2019: repeat
# factors with threshold 0.001).
data_root = '{{$OV_LVIS_ROOT:data/lvis/}}'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='RandomResize',
        scale=(640, 640),
        ratio_range=(0.1, 2.0),
        resize_type='mmdet.Resize',
        keep_ratio=True),
    dict(
        type='mmdet.RandomCrop',
        crop_type='absolute',
        crop_size=(640, 640),
        recompute_bbox=True,
        allow_negative_crop=True),
    dict(
        type='mmdet.FilterAnnotations',
        min_gt_bbox_wh=(0.01, 0.01),
        keep_empty=False),
    dict(type='mmdet.RandomFlip', prob=0.5),
    dict(type='mmdet.PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmdet.Resize', scale=(1333, 800), keep_ratio=True),
    dict(
        type='mmdet.PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                   'scale_factor')),
]
train_dataset = dict(
    type='mmdet_clim.ClassBalancedDataset',
    oversample_thr=0.001,
    dataset=dict(
        type='mmdet_clim.OVLVISDataset',
        data_root=data_root,
        ann_file='annotations/lvis_v1_train_norare.json',
        category_file='annotations/lvis_v1_val.json',
        data_prefix=dict(img=''),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=train_pipeline))
train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='mmdet_clim.MultiSourceSampler'),
    batch_sampler=dict(type='mmdet_clim.MultiSourceBatchSampler'),
    dataset=train_dataset)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmdet_clim.OVLVISDataset',
        data_root=data_root,
        ann_file='annotations/lvis_v1_val.json',
        data_prefix=dict(img=''),
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(
    type='mmdet_clim.OVLVISMetric',
    ann_file=data_root + 'annotations/lvis_v1_val.json')
test_evaluator = val_evaluator
