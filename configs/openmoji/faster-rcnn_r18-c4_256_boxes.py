# Second stage, row 1: boxes only, from the base detector.
_base_ = './faster-rcnn_r18-c4_256_base.py'
max_iters = 500
model = dict(
    backbone=dict(norm_eval=True),
)
load_from = 'work_dirs/faster-rcnn_r18-c4_256_base/iter_1000.pth'
