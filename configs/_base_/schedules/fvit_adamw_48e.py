# 48 epochs (REFERENCE.md, section 5); the rest as with 3.
_base_ = './fvit_adamw_3e.py'
max_epochs = 48
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = _base_.param_scheduler
param_scheduler[0].end = 1000
param_scheduler[1].end = max_epochs
param_scheduler[1].milestones = [32, 43]
