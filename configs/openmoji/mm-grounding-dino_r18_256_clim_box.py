# MM-Grounding-DINO at 256 pixels with CLIM as published: a tile is a region,
# and its tags go to the query that is most like its box.
_base_ = './mm-grounding-dino_r18_256_clim.py'
clim_grounding_objectives = _base_.clim_grounding_objectives
clim_grounding_objectives.tag.update(match='box', box_weight=0)
tokenize_prompts = dict(
    _base_.tokenize_prompts, objectives=clim_grounding_objectives)
clim_mosaic_dataset = dict(
    _base_.clim_mosaic_dataset,
    pipeline=_base_.clim_mosaic_dataset.pipeline[:-1] + [tokenize_prompts])
model = dict(objectives=clim_grounding_objectives)
train_dataloader = dict(
    dataset=dict(datasets=[_base_.train_dataset, clim_mosaic_dataset]))
