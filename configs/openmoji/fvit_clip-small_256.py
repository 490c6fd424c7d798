# F-ViT on the small CLIP that OPENMOJI_CLIP names: the one of clip_pretrain.py
# or one that a clip_*.py has refined. What is not of CLIP starts from
# fvit_clip-small_256_base.py's (OPENMOJI_FVIT), whose CLIP is not in it.
_base_ = './fvit_clip-small_256_base.py'
load_from = '{{$OPENMOJI_FVIT:work_dirs/fvit_clip-small_256_base/iter_1500.pth}}'  # noqa: E501

max_iters = 300
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
param_scheduler = _base_.param_scheduler
param_scheduler[0].end = 20
param_scheduler[1].update(begin=20, end=max_iters)
