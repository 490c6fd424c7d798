# mmdet's MM-Grounding-DINO on OV-LVIS with the data set and metric of this
# package: boxes of the 866 base classes, prompts of an image's own and 40
# others. MM_GROUNDING_DINO names the pretrained weights, BERT_BASE_UNCASED the
# language model.
_base_ = ('mmdet::mm_grounding_dino/lvis/'
          'grounding_dino_swin-t_finetune_16xb4_1x_lvis_866_337.py')
data_root = '{{$OV_LVIS_ROOT:data/lvis/}}'
category_file = 'annotations/lvis_v1_val.json'
vocabulary = dict(
    dataset='mmdet_clim.OVLVISDataset', ann_file=data_root + category_file)
model = dict(
    language_model=dict(name='{{$BERT_BASE_UNCASED:bert-base-uncased}}'),
    backbone=dict(init_cfg=None),
    # mmdet's 6 asks for fairscale, whose checkpoints DDP does not allow beside
    # a second branch; those of the backbone (with_cp) stay.
    encoder=dict(num_cp=0))

train_pipeline = [
    # Without mmdet's prompt, which would hold any class.
    *_base_.train_pipeline[:-2],
    dict(
        type='mmdet_clim.BaseClassPrompt',
        vocabulary=vocabulary,
        num_negatives=40),
    _base_.train_pipeline[-1],
]
train_dataset = dict(
    type='mmdet_clim.ClassBalancedDataset',
    oversample_thr=1e-3,
    dataset=dict(
        type='mmdet_clim.OVLVISDataset',
        data_root=data_root,
        ann_file='annotations/lvis_v1_train_norare.json',
        category_file=category_file,
        data_prefix=dict(img=''),
        filter_cfg=dict(filter_empty_gt=False, min_size=32),
        pipeline=train_pipeline))
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
        type='mmdet_clim.OVLVISDataset',
        data_root=data_root,
        ann_file=category_file,
        data_prefix=dict(img=''),
        test_mode=True,
        return_classes=True,
        pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(
    _delete_=True,
    type='mmdet_clim.OVLVISMetric',
    ann_file=data_root + category_file,
    kinds=('box', ))
test_evaluator = val_evaluator
default_hooks = dict(
    checkpoint=dict(type='mmdet_clim.AtomicCheckpointHook', save_best='auto'))
load_from = '{{$MM_GROUNDING_DINO:checkpoints/mm_grounding_dino_swin-t.pth}}'
