# Second stage on LVIS-like data: boxes and masks, captions and tags of whole
# images, and CLIM mosaics.
_base_ = [
    '../_base_/models/detic_r18_centernet2_small.py',
    '../_base_/datasets/openmoji_lvis_detection.py',
    '../_base_/schedules/openmoji_second_stage.py',
    '../_base_/clim/openmoji_lvis_captions_tags.py',
    '../_base_/default_runtime.py',
]
max_iters = 180
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = _base_.param_scheduler
param_scheduler[0].end = 20
param_scheduler[1].update(begin=20, end=max_iters)
model = dict(
    _delete_=True,
    type='mmdet_clim.CLIMDetector',
    detector=_base_.model,
    objectives=_base_.clim_objectives,
    text_encoder=_base_.clim_text_encoder,
    branches=dict(captions=['caption', 'tag'], mosaic=['caption', 'tag']))
train_dataloader = dict(
    batch_size=16,
    sampler=dict(
        _delete_=True,
        type='mmdet_clim.MultiSourceSampler',
        batch_size=16,
        source_ratio=[8, 2, 6]),
    dataset=dict(
        _delete_=True,
        type='mmdet_clim.MultiSourceDataset',
        datasets=[
            _base_.train_dataset, _base_.clim_caption_dataset,
            _base_.clim_mosaic_dataset
        ]))
auto_scale_lr = dict(enable=False, base_batch_size=16)
load_from = 'work_dirs/centernet2_r18_lvis_base/iter_1200.pth'
