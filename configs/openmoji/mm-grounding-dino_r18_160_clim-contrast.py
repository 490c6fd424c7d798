# MM-Grounding-DINO with CLIM by the other route: the decoder's queries at the
# tiles against the embeddings of captions and class names.
_base_ = './mm-grounding-dino_r18_160_clim.py'
# Nothing is asked of the detector by a prompt but its boxes.
tokenize_prompts = None
clim_mosaic_dataset = dict(
    _base_.clim_mosaic_dataset,
    pipeline=_base_.clim_mosaic_dataset.pipeline[:-1])
model = dict(
    objectives=dict(_delete_=True, **_base_.clim_objectives),
    region_reader=dict(type='mmdet_clim.GroundingReader', source='query'))
train_dataloader = dict(
    dataset=dict(datasets=[_base_.train_dataset, clim_mosaic_dataset]))
