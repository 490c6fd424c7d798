# For detectors that classify many places or queries at once, whose logits
# start at -4.6. With a lower bias, texts are not kept away from a region until
# far beyond what the head takes for certain.
_base_ = './openmoji_captions_tags.py'
clim_objectives = _base_.clim_objectives
clim_objectives.tag.max_proposals = 3
clim_objectives.tag.loss.loss_weight = 0.3
clim_objectives.caption.num_compositions = 0
clim_objectives.tag.loss.bias = -4.6
clim_objectives.caption.loss.bias = -4.6
clim_train_dataloader = dict(
    batch_size=12,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='mmdet_clim.MultiSourceSampler', source_ratio=[4, 8]),
    batch_sampler=dict(type='mmdet_clim.MultiSourceBatchSampler'))
