# 45k iterations of SGD 0.02, gradients clipped at 35 (REFERENCE.md,
# section 1); the steps of the learning rate are Detectron2's proportions.
_base_ = './detic_90k.py'
train_cfg = dict(max_iters=45000, val_interval=45000)
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(end=45000, milestones=[30000, 40000])
