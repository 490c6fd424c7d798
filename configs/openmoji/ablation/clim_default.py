# CLIM as in the long version of the demo: the row that every other row of the
# ablation varies.
_base_ = '../faster-rcnn_r18-c4_256_captions-tags_clim.py'

# A quarter of its schedule, so that three seeds of every row take two
# hours on two cores.
max_iters = 150
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = _base_.param_scheduler
param_scheduler[1].end = max_iters
