# Captioned photographs of COCO at 256 pixels for a CLIP, measured on the boxes
# of 65 classes of other photographs. Made by
# tools/datasets/prepare_coco_small.py. No photograph is flipped or cut: what a
# frozen backbone makes of it is kept on the disk.
data_root = '{{$COCO_SMALL_ROOT:data/coco_small/}}'

region_vocabulary = dict(dataset='mmdet_clim.OVCocoDataset')
captioned_images = dict(
    type='mmdet_clim.ImageTextDataset',
    data_root=data_root,
    ann_file='annotations/captions_train2017_tags.json',
    data_prefix=dict(img='images/'),
    pipeline=[
        dict(type='mmdet_clim.LoadImageText'),
        dict(type='mmdet.Resize', scale=(256, 256), keep_ratio=True),
        dict(type='mmdet_clim.PackRegionTextInputs', branch='captions'),
    ])
train_dataloader = dict(
    batch_size=28,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='mmdet_clim.MultiSourceSampler'),
    batch_sampler=dict(type='mmdet_clim.MultiSourceBatchSampler'),
    dataset=captioned_images)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmdet_clim.OVCocoDataset',
        data_root=data_root,
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='images/'),
        test_mode=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='mmdet.LoadAnnotations', with_bbox=True),
            dict(type='mmdet.Resize', scale=(256, 256), keep_ratio=True),
            dict(type='mmdet.PackDetInputs'),
        ]))
test_dataloader = val_dataloader
val_evaluator = dict(type='mmdet_clim.RegionClassificationMetric')
test_evaluator = val_evaluator
