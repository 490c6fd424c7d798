# Zero-shot DINO, boxes alone, from dino_r18_256_base.py.
_base_ = './dino_r18_256_base.py'
train_dataloader = dict(batch_size=4)
auto_scale_lr = dict(base_batch_size=4)
max_iters = 300
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = _base_.param_scheduler
param_scheduler[0].end = 20
param_scheduler[1].update(begin=20, end=max_iters)
load_from = '{{$OPENMOJI_DINO:work_dirs/dino_r18_256_base/iter_2000.pth}}'
