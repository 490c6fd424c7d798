# Second stage on LVIS-like data: boxes and masks, captions and tags of whole
# images.
_base_ = './centernet2_r18_lvis_clim.py'
model = dict(branches=dict(_delete_=True, captions=['caption', 'tag']))
train_dataloader = dict(
    sampler=dict(source_ratio=[8, 8]),
    dataset=dict(datasets=[_base_.train_dataset, _base_.clim_caption_dataset]))
