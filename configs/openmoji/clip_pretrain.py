# The small CLIP of the offline proof, trained from scratch on whole captioned
# scenes at 128 pixels, which are drawn for it alone. On the 4000 scenes of the
# demo it learns those by heart (docs/region_clip.md has the commands).
# OPENMOJI_CLIP_ROOT names them.
_base_ = [
    '../_base_/datasets/openmoji_clip.py',
    '../_base_/schedules/openmoji_clip.py',
    '../_base_/default_runtime.py',
]
clip = dict(model='{{ fileDirname }}/open_clip_small.json')
model = dict(
    type='mmdet_clim.CLIMOnCLIP',
    image_tower=dict(type='mmdet_clim.DenseImageTower', **clip),
    text_encoder=dict(type='mmdet_clim.OpenCLIPTextTower', **clip),
    unlocked_blocks='all',
    image_size=(128, 128),
    objectives=dict(
        clip=dict(type='mmdet_clim.MosaicTextObjective', grids=())),
    vocabulary=_base_.region_vocabulary,
    templates=('a picture of a {}.', ))
captioned_images = _base_.captioned_images
captioned_images.data_root = '{{$OPENMOJI_CLIP_ROOT:data/openmoji_clip/}}'
# Other sizes and cuts of a scene; never a flip, as captions say 'on the left'.
captioned_images.pipeline = [
    dict(type='mmdet_clim.LoadImageText'),
    dict(
        type='RandomResize',
        scale=(128, 128),
        ratio_range=(0.6, 1.3),
        resize_type='mmdet.Resize',
        keep_ratio=True),
    dict(type='mmdet.RandomCrop', crop_type='absolute', crop_size=(128, 128)),
    dict(type='mmdet_clim.PackRegionTextInputs', branch='captions'),
]
train_dataloader = dict(batch_size=64, dataset=captioned_images)

max_iters = 3500
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
optim_wrapper = dict(optimizer=dict(lr=2e-3, betas=(0.9, 0.98)))
param_scheduler = _base_.param_scheduler
param_scheduler[0].end = 100
param_scheduler[1].update(begin=100, end=max_iters)
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mmdet_clim.WeightAveragingHook', alpha=1.0, half=True),
]
auto_scale_lr = dict(enable=False, base_batch_size=64)
