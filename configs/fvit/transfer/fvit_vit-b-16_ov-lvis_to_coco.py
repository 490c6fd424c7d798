# The detector of OV-LVIS on COCO's 80 classes, without training. A class is
# base if a base class of LVIS has its name. For `mim test` alone.
_base_ = '../ov_lvis/fvit_vit-b-16_48e_ov-lvis_clim.py'
model = dict(
    roi_head=dict(
        trained_vocabulary=_base_.vocabulary,
        bbox_head=dict(
            vocabulary=dict(_delete_=True, dataset='mmdet.CocoDataset')),
        mask_roi_extractor=None,
        mask_head=None),
    test_cfg=dict(rcnn=dict(max_per_img=100)))
coco_root = '{{$OV_COCO_ROOT:data/coco/}}'
test_pipeline = [
    dict(type='LoadImageFromFile'),
    *_base_.test_squares,
    dict(type='mmdet.LoadAnnotations', with_bbox=True),
    dict(
        type='mmdet.PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                   'scale_factor')),
]
test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmdet_clim.CheckedCocoDataset',
        data_root=coco_root,
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'),
        test_mode=True,
        pipeline=test_pipeline))
test_evaluator = dict(
    _delete_=True,
    type='mmdet_clim.CheckedCocoMetric',
    ann_file=coco_root + 'annotations/instances_val2017.json',
    metric='bbox')
train_dataloader = train_cfg = optim_wrapper = param_scheduler = None
val_dataloader = val_cfg = val_evaluator = None
