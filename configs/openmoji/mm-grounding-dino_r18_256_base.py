# MM-Grounding-DINO of the sizes of dino_r18_256_base.py, from whose weights it
# starts (OPENMOJI_DINO), so that only what reads texts starts from scratch.
_base_ = './mm-grounding-dino_r18_160_base.py'
load_from = '{{$OPENMOJI_DINO:work_dirs/dino_r18_256_base/iter_2000.pth}}'
# Labels of its denoising queries are tokens, those of the DINO classes.
load_from_skip = ['dn_query_generator.*']
model = dict(
    num_feature_levels=2,
    backbone=dict(out_indices=(2, ), frozen_stages=3),
    neck=dict(in_channels=[128], num_outs=2, bias=False),
    encoder=dict(layer_cfg=dict(self_attn_cfg=dict(num_levels=2))),
    decoder=dict(layer_cfg=dict(cross_attn_cfg=dict(num_levels=2))))
_base_.train_dataset.pipeline[2].scale = (256, 256)
_base_.train_dataloader.dataset.pipeline[2].scale = (256, 256)
_base_.val_dataloader.dataset.pipeline[1].scale = (256, 256)
_base_.test_dataloader.dataset.pipeline[1].scale = (256, 256)
max_iters = 1000
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = _base_.param_scheduler
param_scheduler[0].end = 50
param_scheduler[1].update(begin=50, end=max_iters)
