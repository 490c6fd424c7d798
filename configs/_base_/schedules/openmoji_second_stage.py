# The second stage of the demo, the same for every row: from the base
# detector, with its batch norms frozen. The backbone and the RPN, which find
# novel objects already, learn slowly: boxes of the base classes stay good
# while the box head learns new classes.
_base_ = './openmoji_first_stage.py'
max_iters = 600
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys=dict(
            backbone=dict(lr_mult=0.1), rpn_head=dict(lr_mult=0.1))))
param_scheduler = _base_.param_scheduler
param_scheduler[0].end = 50
param_scheduler[1].update(begin=50, end=max_iters)
