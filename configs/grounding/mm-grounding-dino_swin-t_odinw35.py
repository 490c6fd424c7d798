# MM-Grounding-DINO without training on ODinW-35, 40 classes at a time. For
# `mim test` alone.
_base_ = [
    './mm-grounding-dino_swin-t_ov-coco_boxes.py',
    '../_base_/datasets/odinw35_sets.py',
]
model = dict(test_cfg=dict(chunked_size=40))
test_cfg = dict(_delete_=True, **_base_.sets_test_cfg)
train_dataloader = train_cfg = optim_wrapper = param_scheduler = None
val_dataloader = val_cfg = val_evaluator = None
