# MM-Grounding-DINO and CLIM on OV-LVIS: mosaics as grounding data.
_base_ = [
    './mm-grounding-dino_swin-t_ov-lvis_boxes.py',
    '../_base_/clim/ov_lvis_captions_tags.py',
]
# Mosaics as grounding data. A tile is no object: where boxes are is learned
# from annotated ones alone, and a tag goes to the query in its tile that reads
# it best. A caption tells of the whole tile; it has some ten tokens where a
# class name has one or two, and the losses are sums over them.
grounding_objectives = dict(
    caption=dict(
        type='mmdet_clim.GroundingObjective',
        texts='captions',
        num_compositions=2,
        loss_weight=0.05,
        box_weight=0.0),
    tag=dict(
        type='mmdet_clim.GroundingObjective',
        texts='tags',
        vocabulary=_base_.clim_vocabulary,
        num_negatives=40,
        num_compositions=0,
        match='text'))
# Prompts are written and tokenised in the data workers.
tokenize_prompts = dict(
    type='mmdet_clim.TokenizePrompts',
    detector=_base_.model.type,
    language_model=_base_.model.language_model,
    objectives=grounding_objectives)
model = dict(
    _delete_=True,
    type='mmdet_clim.CLIMDetector',
    detector=_base_.model,
    objectives=grounding_objectives,
    text_encoder=_base_.clim_text_encoder)
train_dataloader = dict(
    _delete_=True,
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='mmdet_clim.MultiSourceSampler', source_ratio=[4, 4]),
    batch_sampler=dict(type='mmdet_clim.MultiSourceBatchSampler'),
    dataset=dict(
        type='mmdet_clim.MultiSourceDataset',
        datasets=[
            _base_.train_dataset,
            dict(
                _base_.clim_mosaic_dataset,
                pipeline=[
                    *_base_.clim_mosaic_dataset.pipeline, tokenize_prompts
                ])
        ]))
# The samples of both sources count.
auto_scale_lr = dict(base_batch_size=128)
