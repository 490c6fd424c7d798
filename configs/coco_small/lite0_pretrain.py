# A CLIP of captions of whole photographs, on a frozen EfficientNet-Lite0.
_base_ = [
    '../_base_/models/clip_lite0_minilm.py',
    '../_base_/datasets/coco_small_clip.py',
    '../_base_/schedules/openmoji_clip.py',
    '../_base_/default_runtime.py',
]
model = dict(
    vocabulary=_base_.region_vocabulary,
    objectives=dict(
        # A mosaic of one: the photograph without what it is padded with.
        clip=dict(type='mmdet_clim.MosaicTextObjective', grids=((1, 1), ))))
train_dataloader = dict(batch_size=64)

max_iters = 600
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = _base_.param_scheduler
param_scheduler[1].end = max_iters
auto_scale_lr = dict(enable=False, base_batch_size=64)
