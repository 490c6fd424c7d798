# CLIM on the CLIP that COCO_SMALL_CLIP names: of 28 photographs two stay
# whole, the others are tiles of mosaics of 2x2 and 3x3.
_base_ = [
    '../_base_/models/clip_lite0_minilm.py',
    '../_base_/datasets/coco_small_clip.py',
    '../_base_/schedules/openmoji_clip.py',
    '../_base_/default_runtime.py',
]
model = dict(
    image_tower=dict(
        pretrained='{{$COCO_SMALL_CLIP:work_dirs/lite0_pretrain/iter_600.pth}}'
    ),
    vocabulary=_base_.region_vocabulary,
    objectives=dict(
        clim=dict(
            type='mmdet_clim.MosaicTextObjective',
            grids=((1, 1), (2, 2), (3, 3)))))

max_iters = 100
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
optim_wrapper = dict(optimizer=dict(lr=1e-4))
param_scheduler = _base_.param_scheduler
param_scheduler[0].end = 10
param_scheduler[1].update(begin=10, end=max_iters)
auto_scale_lr = dict(enable=False, base_batch_size=28)
