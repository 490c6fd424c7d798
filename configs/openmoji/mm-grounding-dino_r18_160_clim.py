# MM-Grounding-DINO with CLIM: mosaics of captioned images as grounding data.
_base_ = [
    './mm-grounding-dino_r18_160_boxes.py',
    '../_base_/clim/openmoji_captions_tags.py',
]
clim_mosaic_dataset = _base_.clim_mosaic_dataset
clim_mosaic_dataset.pipeline[2].update(tile_size=(80, 80), out_size=(160, 160))
# All other names stand in the prompt too, as when the detector is tested.
clim_grounding_objectives = dict(
    tag=dict(
        type='mmdet_clim.GroundingObjective',
        texts='tags',
        vocabulary=_base_.clim_vocabulary,
        num_negatives=64,
        num_compositions=0,
        match='text'))
# Prompts are written and tokenised in the data workers.
tokenize_prompts = dict(
    type='mmdet_clim.TokenizePrompts',
    detector=_base_.model.type,
    language_model=_base_.model.language_model,
    objectives=clim_grounding_objectives)
clim_mosaic_dataset.pipeline.append(tokenize_prompts)
model = dict(
    _delete_=True,
    type='mmdet_clim.CLIMDetector',
    detector=_base_.model,
    objectives=clim_grounding_objectives,
    text_encoder=_base_.clim_text_encoder)
train_dataloader = dict(
    _delete_=True,
    batch_size=12,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='mmdet_clim.MultiSourceSampler', source_ratio=[8, 4]),
    batch_sampler=dict(type='mmdet_clim.MultiSourceBatchSampler'),
    dataset=dict(
        type='mmdet_clim.MultiSourceDataset',
        datasets=[_base_.train_dataset, clim_mosaic_dataset]))
auto_scale_lr = dict(base_batch_size=12)
