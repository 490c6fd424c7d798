# Zero-shot DINO: boxes, captions and tags, and CLIM mosaics.
_base_ = './dino_r18_256_captions-tags.py'
model = dict(
    branches=dict(captions=['caption', 'tag'], mosaic=['caption', 'tag']))
train_dataloader = dict(
    sampler=dict(source_ratio=[4, 2, 6]),
    dataset=dict(datasets=[
        _base_.train_dataset, _base_.clim_caption_dataset,
        _base_.clim_mosaic_dataset
    ]))
