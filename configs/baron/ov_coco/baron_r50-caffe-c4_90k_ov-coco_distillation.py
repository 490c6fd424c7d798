# Boxes, and bags of regions of the same images against the crops that they are
# cut from: one stage from ImageNet, on 8 GPUs. No captions.
_base_ = [
    '../../_base_/models/baron_r50-caffe-c4_softmax.py',
    '../../_base_/datasets/ov_coco_detection.py',
    '../../_base_/schedules/detic_90k.py',
    '../../_base_/clim/ov_coco_bags.py',
    '../../_base_/default_runtime.py',
]
distillation = _base_.clim_distillation_objective
distillation.image_encoder.data_preprocessor = _base_.model.data_preprocessor
model = dict(
    _delete_=True,
    type='mmdet_clim.CLIMDetector',
    detector=_base_.model,
    objectives=dict(distillation=distillation),
    text_encoder=_base_.clim_text_encoder,
    branches=dict(boxes=['distillation']))
auto_scale_lr = dict(enable=False, base_batch_size=16)
