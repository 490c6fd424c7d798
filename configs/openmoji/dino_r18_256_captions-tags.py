# Zero-shot DINO: boxes, and captions and tags of whole images.
_base_ = [
    './dino_r18_256_boxes.py',
    '../_base_/clim/openmoji_dense_captions_tags.py',
]
model = dict(
    _delete_=True,
    type='mmdet_clim.CLIMDetector',
    detector=_base_.model,
    objectives=_base_.clim_objectives,
    text_encoder=_base_.clim_text_encoder,
    branches=dict(captions=['caption', 'tag']))
train_dataloader = dict(
    _delete_=True,
    **_base_.clim_train_dataloader,
    dataset=dict(
        type='mmdet_clim.MultiSourceDataset',
        datasets=[_base_.train_dataset, _base_.clim_caption_dataset]))
auto_scale_lr = dict(base_batch_size=12)
