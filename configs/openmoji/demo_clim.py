# As demo_captions-tags.py, and CLIM mosaics: as published but for the three
# best proposals.
_base_ = './demo_captions-tags.py'
model = dict(
    branches=dict(captions=['caption', 'tag'], mosaic=['caption', 'tag']))
train_dataloader = dict(
    sampler=dict(source_ratio=[4, 2, 6]),
    dataset=dict(datasets=[
        _base_.train_dataset, _base_.clim_caption_dataset,
        _base_.clim_mosaic_dataset
    ]))
