# Second stage on LVIS-like data: boxes and masks, captions and tags of whole
# images, and CLIM mosaics.
_base_ = [
    './centernet2_r18_lvis_boxes.py',
    '../_base_/clim/openmoji_lvis_captions_tags.py',
]
model = dict(
    _delete_=True,
    type='mmdet_clim.CLIMDetector',
    detector=_base_.model,
    objectives=_base_.clim_objectives,
    text_encoder=_base_.clim_text_encoder,
    branches=dict(captions=['caption', 'tag'], mosaic=['caption', 'tag']))
train_dataloader = dict(
    batch_size=16,
    sampler=dict(type='mmdet_clim.MultiSourceSampler', source_ratio=[8, 2, 6]),
    dataset=dict(
        _delete_=True,
        type='mmdet_clim.MultiSourceDataset',
        datasets=[
            _base_.train_dataset, _base_.clim_caption_dataset,
            _base_.clim_mosaic_dataset
        ]))
auto_scale_lr = dict(base_batch_size=16)
