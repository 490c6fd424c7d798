# Detic's way: the regions are whole images, with the same captions and tags.
_base_ = '../faster-rcnn_r18-c4_256_captions-tags.py'

# As in clim_default.py.
max_iters = 150
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = _base_.param_scheduler
param_scheduler[1].end = max_iters
