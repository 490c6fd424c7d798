# MM-Grounding-DINO without training on LVIS minival (those images of LVIS's
# validation set that are in COCO's), "fixed AP": see OVLVISMetric. For
# `mim test` alone.
_base_ = './mm-grounding-dino_swin-t_ov-lvis_boxes.py'
ann_file = 'annotations/lvis_v1_minival_inserted_image_name.json'
model = dict(test_cfg=dict(max_per_img=300, chunked_size=40))
test_dataloader = dict(dataset=dict(ann_file=ann_file, category_file=ann_file))
test_evaluator = dict(ann_file=_base_.data_root + ann_file, fixed_ap=True)
train_dataloader = train_cfg = optim_wrapper = param_scheduler = None
val_dataloader = val_cfg = val_evaluator = None
