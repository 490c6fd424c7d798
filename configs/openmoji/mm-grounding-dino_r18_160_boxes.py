# MM-Grounding-DINO, boxes only, from what mm-grounding-dino_r18_160_base.py
# has trained (OPENMOJI_MMGD).
_base_ = './mm-grounding-dino_r18_160_base.py'
load_from = '{{$OPENMOJI_MMGD:work_dirs/mm-grounding-dino_r18_160_base/iter_3000.pth}}'  # noqa: E501

max_iters = 400
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = _base_.param_scheduler
param_scheduler[0].end = 20
param_scheduler[1].update(begin=20, end=max_iters)
