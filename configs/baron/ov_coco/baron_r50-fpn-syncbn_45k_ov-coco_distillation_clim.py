# Distillation on plain images, and bags of CLIM mosaics against captions,
# 2 : 2 : 2 per GPU.
_base_ = './baron_r50-fpn-syncbn_45k_ov-coco_captions-distillation_clim.py'
model = dict(branches=dict(captions=['distillation']))
