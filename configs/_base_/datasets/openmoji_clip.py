# OpenMoji-COCO for a CLIP: captioned scenes, in a batch of which 29 of 32 make
# mosaics of 256 pixels. Measured on the boxes and masks of val2017, and by
# retrieval among 500 images of train2017, which have captions as well and are
# in no training of a CLIP.
data_root = '{{$OPENMOJI_ROOT:data/openmoji_coco/}}'

region_vocabulary = dict(dataset='mmdet_clim.OVCocoDataset')
caption_pipeline = [
    dict(type='mmdet_clim.LoadImageText', scale=(256, 256)),
    dict(type='mmdet.Resize', scale=(256, 256), keep_ratio=True),
    dict(type='mmdet_clim.PackRegionTextInputs', branch='captions'),
]
captioned_images = dict(
    type='mmdet_clim.ImageTextDataset',
    data_root=data_root,
    ann_file='annotations/captions_captioned2017_tags.json',
    data_prefix=dict(img='captioned2017/'),
    pipeline=caption_pipeline)
train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='mmdet_clim.MultiSourceSampler'),
    batch_sampler=dict(type='mmdet_clim.MultiSourceBatchSampler'),
    dataset=captioned_images)

region_dataset = dict(
    type='mmdet_clim.OVCocoDataset',
    data_root=data_root,
    ann_file='annotations/instances_val2017.json',
    data_prefix=dict(img='val2017/'),
    test_mode=True,
    pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=True),
        dict(type='mmdet.Resize', scale=(256, 256), keep_ratio=True),
        dict(type='mmdet.PackDetInputs'),
    ])
# As the small CLIP was trained: padded with its mean colour (BGR).
retrieval_dataset = dict(
    type='mmdet_clim.ImageTextDataset',
    data_root=data_root,
    ann_file='annotations/captions_train2017_tags.json',
    data_prefix=dict(img='train2017/'),
    indices=500,
    test_mode=True,
    pipeline=[
        dict(type='mmdet_clim.LoadImageText', scale=(128, 128)),
        dict(type='mmdet.Resize', scale=(128, 128), keep_ratio=True),
        dict(
            type='mmdet.Pad',
            size=(128, 128),
            pad_val=dict(img=(104, 117, 123))),
        dict(type='mmdet_clim.PackRegionTextInputs', branch='captions'),
    ])
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmdet_clim.MultiSourceDataset',
        datasets=[region_dataset, retrieval_dataset]))
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='mmdet_clim.RegionClassificationMetric'),
    dict(type='mmdet_clim.ImageTextRetrievalMetric'),
]
test_evaluator = val_evaluator
