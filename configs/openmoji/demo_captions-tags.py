# Boxes, and captions and tags of whole images, as long as the demo's rows; of
# an image the largest of the three best proposals is the region of all tags.
_base_ = ['./demo_boxes.py', '../_base_/clim/openmoji_captions_tags.py']
# The largest of all proposals of a tile is often a box around two objects.
# Without rectangles of tiles a step has a quarter fewer regions to read.
clim_objectives = _base_.clim_objectives
clim_objectives.tag.max_proposals = 3
clim_objectives.tag.loss.loss_weight = 0.3
clim_objectives.caption.num_compositions = 0
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
