# mmdet's MM-Grounding-DINO on OV-COCO with the data set and metric of this
# package: prompts of the 48 base classes. MM_GROUNDING_DINO names the
# pretrained weights, BERT_BASE_UNCASED the language model.
_base_ = ('mmdet::mm_grounding_dino/coco/'
          'grounding_dino_swin-t_finetune_16xb4_1x_coco_48_17.py')
data_root = '{{$OV_COCO_ROOT:data/coco/}}'
vocabulary = dict(dataset='mmdet_clim.OVCocoDataset')
model = dict(
    language_model=dict(name='{{$BERT_BASE_UNCASED:bert-base-uncased}}'),
    backbone=dict(init_cfg=None),
    # mmdet's 6 asks for fairscale, whose checkpoints DDP does not allow beside
    # a second branch; those of the backbone (with_cp) stay.
    encoder=dict(num_cp=0))

train_pipeline = [
    *_base_.train_pipeline[:-1],
    dict(type='mmdet_clim.BaseClassPrompt', vocabulary=vocabulary),
    _base_.train_pipeline[-1],
]
train_dataset = dict(
    type='mmdet_clim.OVCocoDataset',
    data_root=data_root,
    ann_file='annotations/instances_train2017_base.json',
    data_prefix=dict(img='train2017/'),
    filter_cfg=dict(filter_empty_gt=False, min_size=32),
    pipeline=train_pipeline)
train_dataloader = dict(
    sampler=dict(
        _delete_=True,
        type='mmdet_clim.MultiSourceSampler',
        aspect_grouping=True),
    batch_sampler=dict(
        _delete_=True, type='mmdet_clim.MultiSourceBatchSampler'),
    dataset=dict(_delete_=True, **train_dataset))
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmdet_clim.OVCocoDataset',
        data_root=data_root,
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'),
        test_mode=True,
        return_classes=True,
        pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(
    _delete_=True,
    type='mmdet_clim.OVCocoMetric',
    ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator
default_hooks = dict(
    checkpoint=dict(
        type='mmdet_clim.AtomicCheckpointHook',
        save_best='ov_coco/novel_ap50'))
load_from = '{{$MM_GROUNDING_DINO:checkpoints/mm_grounding_dino_swin-t.pth}}'
