# Dense detector: boxes, and captions and tags of whole images.
_base_ = [
    './fcos_r18_256_boxes.py', '../_base_/clim/openmoji_captions_tags.py'
]
clim_objectives = _base_.clim_objectives
clim_objectives.tag.max_proposals = 3
clim_objectives.tag.loss.loss_weight = 0.3
clim_objectives.caption.num_compositions = 0
# Where the head's own bias starts. With a lower one, texts are not kept away
# from a region until far beyond what the head takes for certain.
clim_objectives.tag.loss.bias = -4.6
clim_objectives.caption.loss.bias = -4.6
model = dict(
    _delete_=True,
    type='mmdet_clim.CLIMDetector',
    detector=_base_.model,
    objectives=clim_objectives,
    text_encoder=_base_.clim_text_encoder,
    branches=dict(captions=['caption', 'tag']))
train_dataloader = dict(
    _delete_=True,
    batch_size=12,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='mmdet_clim.MultiSourceSampler', source_ratio=[4, 8]),
    batch_sampler=dict(type='mmdet_clim.MultiSourceBatchSampler'),
    dataset=dict(
        type='mmdet_clim.MultiSourceDataset',
        datasets=[_base_.train_dataset, _base_.clim_caption_dataset]))
auto_scale_lr = dict(base_batch_size=12)
