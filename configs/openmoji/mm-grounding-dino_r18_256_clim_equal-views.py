# As mm-grounding-dino_r18_256_clim.py, with the 6 captioned views a step of
# mm-grounding-dino_r18_256_captions-tags.py: 2 whole images and the 4 tiles of
# a mosaic of 2x2, which are read anew.
_base_ = './mm-grounding-dino_r18_256_clim.py'
_base_.clim_mosaic_dataset.pipeline = []
_base_.clim_mosaic_pipeline[2].grids = ((2, 2), )
# There are two branches here: together they weigh as much as the one there.
model = dict(
    objectives=dict(tag=dict(loss_weight=2.0)),
    branches=dict(captions=['tag']))
train_dataloader = dict(
    batch_size=7,
    sampler=dict(source_ratio=[4, 2, 1]),
    dataset=dict(datasets=[
        _base_.train_dataset, _base_.clim_caption_dataset,
        dict(
            type='mmdet.MultiImageMixDataset',
            dataset=_base_.clim_mosaic_dataset,
            pipeline=_base_.clim_mosaic_pipeline[2:] +
            [_base_.tokenize_prompts])
    ]))
auto_scale_lr = dict(base_batch_size=7)
