# CLIM on CLIP ViT-B/16 with CC3M's captions.
_base_ = [
    '../_base_/models/clim_on_clip_vit-b-16.py',
    '../_base_/datasets/clip_cc3m.py',
    '../_base_/schedules/clip_refinement.py',
    '../_base_/epoch_runtime.py',
]
train_cfg = dict(max_epochs=_base_.max_epochs, val_interval=_base_.max_epochs)
param_scheduler = _base_.param_scheduler
param_scheduler[1].end = _base_.max_epochs
custom_hooks = [*_base_.custom_hooks, _base_.averaging]
