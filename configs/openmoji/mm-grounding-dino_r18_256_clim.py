# MM-Grounding-DINO at 256 pixels: boxes, and tags of mosaics: each tag of a
# tile goes to the query inside it that reads it best.
_base_ = './mm-grounding-dino_r18_256_captions-tags.py'
clim_mosaic_dataset = _base_.clim_mosaic_dataset
clim_mosaic_dataset.pipeline.append(_base_.tokenize_prompts)
model = dict(branches=dict(_delete_=True, mosaic=['tag']))
train_dataloader = dict(
    dataset=dict(datasets=[_base_.train_dataset, clim_mosaic_dataset]))
