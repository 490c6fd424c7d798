# Row 3: boxes, captions and tags, and CLIM mosaics. Its two branches have half
# the weights of row 2's one.
_base_ = './faster-rcnn_lite0_256_captions-tags.py'
model = dict(
    branches=dict(captions=['caption', 'tag'], mosaic=['caption', 'tag']),
    objectives=dict(
        caption=dict(loss=dict(loss_weight=0.025)),
        tag=dict(loss=dict(loss_weight=0.1))))
train_dataloader = dict(
    batch_size=10,
    sampler=dict(source_ratio=[4, 4, 2]),
    dataset=dict(datasets=[
        _base_.train_dataset, _base_.clim_caption_dataset,
        _base_.clim_mosaic_dataset
    ]))
auto_scale_lr = dict(base_batch_size=10)
