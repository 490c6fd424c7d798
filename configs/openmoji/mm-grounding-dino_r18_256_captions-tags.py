# MM-Grounding-DINO at 256 pixels: boxes, and tags of whole images as grounding
# data: each tag goes to the query of the image that reads it best.
_base_ = [
    './mm-grounding-dino_r18_256_boxes.py',
    '../_base_/clim/openmoji_captions_tags.py',
]
# All other names stand in the prompt too, as when the detector is tested.
clim_grounding_objectives = dict(
    tag=dict(
        type='mmdet_clim.GroundingObjective',
        texts='tags',
        vocabulary=_base_.clim_vocabulary,
        num_negatives=64,
        num_compositions=0,
        match='text',
        # With 1, the classes of the tags are hardly learned in 300 iterations.
        loss_weight=4.0))
# Prompts are written and tokenised in the data workers.
tokenize_prompts = dict(
    type='mmdet_clim.TokenizePrompts',
    detector=_base_.model.type,
    language_model=_base_.model.language_model,
    objectives=clim_grounding_objectives)
clim_caption_dataset = _base_.clim_caption_dataset
clim_caption_dataset.pipeline.append(tokenize_prompts)
model = dict(
    _delete_=True,
    type='mmdet_clim.CLIMDetector',
    detector=_base_.model,
    objectives=clim_grounding_objectives,
    text_encoder=_base_.clim_text_encoder,
    branches=dict(captions=['tag']))
train_dataloader = dict(
    _delete_=True,
    batch_size=10,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='mmdet_clim.MultiSourceSampler', source_ratio=[4, 6]),
    batch_sampler=dict(type='mmdet_clim.MultiSourceBatchSampler'),
    dataset=dict(
        type='mmdet_clim.MultiSourceDataset',
        datasets=[_base_.train_dataset, clim_caption_dataset]))
auto_scale_lr = dict(base_batch_size=10)
