# CLIM on the small CLIP that OPENMOJI_CLIP names: mosaics of 2x2, 3x3 and 4x4
# of 29 images in 32 (REFERENCE.md, section 4), half of its blocks trained.
_base_ = [
    '../_base_/datasets/openmoji_clip.py',
    '../_base_/schedules/openmoji_clip.py',
    '../_base_/default_runtime.py',
]
clip = dict(
    model='{{ fileDirname }}/open_clip_small.json',
    pretrained='{{$OPENMOJI_CLIP:work_dirs/clip_pretrain/open_clip.pt}}')
model = dict(
    type='mmdet_clim.CLIMOnCLIP',
    image_tower=dict(type='mmdet_clim.DenseImageTower', **clip),
    text_encoder=dict(type='mmdet_clim.OpenCLIPTextEncoder', **clip),
    unlocked_blocks=2,
    image_size=(256, 256),
    objectives=dict(
        clim=dict(
            type='mmdet_clim.MosaicTextObjective',
            grids=((2, 2), (3, 3), (4, 4)))),
    vocabulary=_base_.region_vocabulary,
    region_ways=('roi', 'centre', 'mask', 'crop'),
    templates=('a picture of a {}.', ))
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mmdet_clim.WeightAveragingHook', alpha=0.7),
]
auto_scale_lr = dict(enable=False, base_batch_size=32)
