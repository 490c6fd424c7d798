# Boxes, and captions of whole images, 2 : 2 per GPU.
_base_ = [
    '../../_base_/models/detic_r50-caffe-c4.py',
    '../../_base_/datasets/ov_coco_detection.py',
    '../../_base_/schedules/detic_45k.py',
    '../../_base_/clim/ov_coco_captions_tags.py',
    '../../_base_/default_runtime.py',
]
model = dict(
    _delete_=True,
    type='mmdet_clim.CLIMDetector',
    detector=_base_.model,
    objectives=dict(caption=_base_.clim_caption_objective),
    text_encoder=_base_.clim_text_encoder,
    branches=dict(captions=['caption']))
train_dataloader = dict(
    batch_size=4,
    sampler=dict(source_ratio=[2, 2]),
    dataset=dict(
        _delete_=True,
        type='mmdet_clim.MultiSourceDataset',
        datasets=[_base_.train_dataset, _base_.clim_caption_dataset]))
auto_scale_lr = dict(enable=False, base_batch_size=32)
load_from = \
    'work_dirs/detic_r50-caffe-c4_90k_ov-coco_base/iter_90000.pth'
