# Boxes, and bags of images against the crops that they are cut from, 2 : 2 per
# GPU. Captions are not looked at.
_base_ = './baron_r50-fpn-syncbn_45k_ov-coco_captions-distillation.py'
model = dict(
    objectives=dict(
        _delete_=True, distillation=_base_.model.objectives.distillation),
    branches=dict(captions=['distillation']))
