# Boxes and masks of the base classes of OpenMoji's LVIS-like data, 256 px.
# Made by tools/datasets/make_openmoji_coco.py --vocabulary lvis.
# As on LVIS, common classes oversample their images, frequent ones do not:
# from one image in 80 on a class is frequent (0.001 on LVIS).
_base_ = './ov_lvis_detection.py'
data_root = '{{$OPENMOJI_LVIS_ROOT:data/openmoji_lvis/}}'

train_pipeline = [
    *_base_.train_pipeline[:2],
    dict(type='mmdet.RandomFlip', prob=0.5),
    dict(type='mmdet.PackDetInputs'),
]
test_pipeline = [
    _base_.test_pipeline[0],
    dict(_base_.test_pipeline[1], scale=(256, 256)),
    _base_.test_pipeline[2],
]
train_dataset = dict(
    oversample_thr=0.0125,
    dataset=dict(data_root=data_root, pipeline=train_pipeline))
train_dataloader = dict(num_workers=1, dataset=train_dataset)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(data_root=data_root, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/lvis_v1_val.json')
test_evaluator = val_evaluator
