# 45k iterations of AdamW 2e-4 from the box-supervised weights (REFERENCE.md,
# section 1), otherwise as those.
_base_ = './detic_adamw_90k.py'
train_cfg = dict(max_iters=45000, val_interval=45000)
optim_wrapper = dict(optimizer=dict(lr=2e-4))
param_scheduler = _base_.param_scheduler
param_scheduler[1].end = 45000
