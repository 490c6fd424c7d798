# What a refined CLIP is measured on: the regions of COCO's panoptic val2017 in
# squares of 1024 pixels, from 64 x 64 to 1024 x 1024 pixels large, at most 100
# per image (REFERENCE.md, section 4), and retrieval among its captions.
# OV_COCO_ROOT names the folder, in COCO's own layout, with the segment maps in
# annotations/panoptic_val2017/.
coco_root = '{{$OV_COCO_ROOT:data/coco/}}'

region_vocabulary = dict(dataset='mmdet_clim.CocoPanopticRegionDataset')
# From annotated regions to the network's input; padded with CLIP's mean (BGR).
region_squares = [
    dict(
        type='mmdet.Resize',
        scale=(1024, 1024),
        keep_ratio=True,
        interpolation='bicubic'),
    dict(
        type='mmdet.Pad', size=(1024, 1024),
        pad_val=dict(img=(104, 117, 123))),
]
region_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmdet_clim.LoadPanopticRegions'),
    *region_squares,
    dict(
        type='mmdet_clim.FilterRegionsByArea',
        min_area=64**2,
        max_area=1024**2,
        max_regions=100),
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
    dict(
        type='mmdet.Resize',
        scale=(224, 10000),
        keep_ratio=True,
        interpolation='bicubic'),
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
