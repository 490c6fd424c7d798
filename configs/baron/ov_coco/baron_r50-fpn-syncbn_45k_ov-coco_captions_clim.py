# Boxes, bags of captioned images, and bags of CLIM mosaics, 2 : 2 : 2 per GPU.
# From the weights without mosaics, whose statistics batch norms keep: those of
# mosaics are others.
_base_ = './baron_r50-fpn-syncbn_90k_ov-coco_captions.py'
model = dict(norm_eval=True, branches=dict(mosaic=['bag']))
train_dataloader = dict(
    batch_size=6,
    sampler=dict(source_ratio=[2, 2, 2]),
    dataset=dict(datasets=[
        _base_.train_dataset, _base_.clim_caption_dataset,
        _base_.clim_mosaic_dataset
    ]))
auto_scale_lr = dict(base_batch_size=96)
train_cfg = dict(max_iters=45000, val_interval=45000)
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(end=45000, milestones=[30000, 40000])
load_from = \
    'work_dirs/baron_r50-fpn-syncbn_90k_ov-coco_captions/iter_90000.pth'
