# Boxes, their bags against crops, and bags of captioned images against
# captions, 2 : 2 per GPU.
_base_ = './baron_r50-fpn-syncbn_90k_ov-coco_captions.py'
distillation = _base_.clim_distillation_objective
distillation.image_encoder.data_preprocessor = \
    _base_.model.detector.data_preprocessor
model = dict(
    objectives=dict(distillation=distillation),
    branches=dict(boxes=['distillation']))
