# The detector of OV-LVIS on the 365 classes of Objects365 v1, without
# training. OBJECTS365_ROOT names the folder.
_base_ = './fvit_vit-b-16_ov-lvis_to_coco.py'
model = dict(
    roi_head=dict(
        bbox_head=dict(vocabulary=dict(dataset='mmdet.Objects365V1Dataset'))))
objects365_root = '{{$OBJECTS365_ROOT:data/objects365/}}'
test_dataloader = dict(
    dataset=dict(
        type='mmdet.Objects365V1Dataset',
        data_root=objects365_root,
        ann_file='annotations/objects365_val.json',
        data_prefix=dict(img='val/')))
test_evaluator = dict(
    ann_file=objects365_root + 'annotations/objects365_val.json',
    sort_categories=True)
