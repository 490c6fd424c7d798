# `make demo`, row 1: boxes only, from the base detector. Made for a quarter of
# an hour on two cores: the backbone is frozen, few regions are sampled, few
# proposals are classified in a test, and half the iterations of
# faster-rcnn_r18-c4_256_boxes.py at twice its rate.
_base_ = './faster-rcnn_r18-c4_256_boxes.py'
model = dict(
    backbone=dict(frozen_stages=3),
    train_cfg=dict(rcnn=dict(sampler=dict(num=16))),
    test_cfg=dict(rpn=dict(max_per_img=50)))
train_dataloader = dict(batch_size=4)
auto_scale_lr = dict(base_batch_size=4)

max_iters = 300
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = _base_.param_scheduler
param_scheduler[1].end = max_iters
