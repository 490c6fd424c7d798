# Boxes of the base classes on photographs of COCO at 256 pixels. Made by
# tools/datasets/prepare_coco_small.py. No photograph is flipped: what a frozen
# backbone makes of it is kept on the disk.
_base_ = './ov_coco_detection.py'
data_root = '{{$COCO_SMALL_ROOT:data/coco_small/}}'

train_pipeline = [
    *_base_.train_pipeline[:2],
    dict(_base_.train_pipeline[2], scale=(256, 256)),
    _base_.train_pipeline[4],
]
test_pipeline = [
    _base_.test_pipeline[0],
    dict(_base_.test_pipeline[1], scale=(256, 256)),
    *_base_.test_pipeline[2:],
]
train_dataset = dict(
    type='mmdet_clim.OVCocoDataset',
    data_root=data_root,
    data_prefix=dict(img='images/'),
    filter_cfg=dict(min_size=0),
    pipeline=train_pipeline)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    sampler=dict(aspect_grouping=False),
    dataset=train_dataset)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(
        type='mmdet_clim.OVCocoDataset',
        data_root=data_root,
        data_prefix=dict(img='images/'),
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator
