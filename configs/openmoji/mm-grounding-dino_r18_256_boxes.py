# MM-Grounding-DINO at 256 pixels, boxes alone, from what
# mm-grounding-dino_r18_256_base.py has trained (OPENMOJI_MMGD_256).
_base_ = './mm-grounding-dino_r18_256_base.py'
load_from = '{{$OPENMOJI_MMGD_256:work_dirs/mm-grounding-dino_r18_256_base/iter_1000.pth}}'  # noqa: E501
load_from_skip = []
train_dataloader = dict(batch_size=4)
auto_scale_lr = dict(base_batch_size=4)
max_iters = 300
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = _base_.param_scheduler
param_scheduler[0].end = 20
param_scheduler[1].update(begin=20, end=max_iters)
