# What a refined CLIP is measured on: all regions of COCO's panoptic val2017 at
# 1024 pixels, and retrieval among its captions. OV_COCO_ROOT names the folder,
# in COCO's own layout, with the segment maps in annotations/panoptic_val2017/.
coco_root = '{{$OV_COCO_ROOT:data/coco/}}'

region_vocabulary = dict(dataset='mmdet_clim.CocoPanopticRegionDataset')
region_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmdet_clim.LoadPanopticRegions'),
    dict(type='mmdet.Resize', scale=(1024, 1024), keep_ratio=True),
    dict(type='mmdet.PackDetInputs'),
]
region_dataset = dict(
    type='mmdet_clim.CocoPanopticRegionDataset',
    data_root=coco_root,
    ann_file='annotations/panoptic_val2017.json',
    data_prefix=dict(img='val2017/', seg='annotations/panoptic_val2017/'),
    test_mode=True,
    pipeline=region_pipeline)
# As CLIP's own evaluation: the short side, and the middle.
retrieval_pipeline = [
    dict(type='mmdet_clim.LoadImageText'),
    dict(type='mmdet.Resize', scale=(224, 10000), keep_ratio=True),
    dict(type='CenterCrop', crop_size=224),
    dict(type='mmdet_clim.PackRegionTextInputs', branch='captions'),
]
retrieval_dataset = dict(
    type='mmdet_clim.ImageTextDataset',
    data_root=coco_root,
    ann_file='annotations/captions_val2017.json',
    data_prefix=dict(img='val2017/'),
    test_mode=True,
    pipeline=retrieval_pipeline)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
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
