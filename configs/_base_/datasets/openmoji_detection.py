# Boxes of the base classes of OpenMoji-COCO, 256 px, in the vocabulary of the
# 65 classes; images are square. Made by tools/datasets/make_openmoji_coco.py.
_base_ = './ov_coco_detection.py'
data_root = '{{$OPENMOJI_ROOT:data/openmoji_coco/}}'

train_pipeline = [
    *_base_.train_pipeline[:2],
    *_base_.train_pipeline[3:],  # as large as drawn
]
test_pipeline = [
    _base_.test_pipeline[0],
    dict(_base_.test_pipeline[1], scale=(256, 256)),
    *_base_.test_pipeline[2:],
]
dataset_type = 'mmdet_clim.OVCocoDataset'
train_dataset = dict(
    type=dataset_type,
    data_root=data_root,
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
        type=dataset_type, data_root=data_root, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator
