# Boxes and masks, and bags of regions of the same images against the crops
# that they are cut from: one stage of 45k iterations with four times the batch
# of 16 images, from SoCo's weights. The rate is OV-COCO's for that batch.
_base_ = [
    '../../_base_/models/baron_mask-rcnn_r50-fpn-syncbn.py',
    '../../_base_/datasets/ov_lvis_detection.py',
    '../../_base_/schedules/baron_fpn_90k.py',
    '../../_base_/clim/ov_lvis_bags.py',
    '../../_base_/default_runtime.py',
]
distillation = _base_.clim_distillation_objective
distillation.image_encoder.data_preprocessor = _base_.model.data_preprocessor
model = dict(
    _delete_=True,
    type='mmdet_clim.CLIMDetector',
    detector=_base_.model,
    norm_eval=False,
    objectives=dict(distillation=distillation),
    text_encoder=_base_.clim_text_encoder,
    branches=dict(boxes=['distillation']))
optim_wrapper = dict(optimizer=dict(lr=0.08))
train_cfg = dict(max_iters=45000, val_interval=45000)
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(end=45000, milestones=[30000, 40000])
auto_scale_lr = dict(enable=False, base_batch_size=64)
