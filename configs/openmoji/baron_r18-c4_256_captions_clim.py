# BARON and CLIM: boxes, and bags of regions of captioned images, of the tiles
# of mosaics and of their unions.
_base_ = './baron_r18-c4_256_captions.py'
model = dict(branches=dict(mosaic=['bag']))
train_dataloader = dict(
    batch_size=16,
    sampler=dict(source_ratio=[8, 2, 6]),
    dataset=dict(datasets=[
        _base_.train_dataset, _base_.clim_caption_dataset,
        _base_.clim_mosaic_dataset
    ]))
