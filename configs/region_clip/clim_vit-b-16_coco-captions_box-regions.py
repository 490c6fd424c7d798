# The same, measured on all boxes and masks of plain COCO, of whatever size,
# base and novel classes of OV-COCO apart.
_base_ = './clim_vit-b-16_coco-captions.py'
model = dict(
    vocabulary=dict(dataset='mmdet_clim.OVCocoDataset'), num_things=None)
box_region_dataset = dict(
    type='mmdet_clim.OVCocoDataset',
    data_root=_base_.coco_root,
    ann_file='annotations/instances_val2017.json',
    data_prefix=dict(img='val2017/'),
    test_mode=True,
    pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=True),
        *_base_.region_squares,
        dict(type='mmdet.PackDetInputs'),
    ])
val_dataloader = dict(
    dataset=dict(datasets=[box_region_dataset, _base_.retrieval_dataset]))
test_dataloader = val_dataloader
