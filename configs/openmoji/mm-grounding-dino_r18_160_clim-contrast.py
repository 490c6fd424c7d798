# MM-Grounding-DINO with CLIM by the other route: the decoder's queries at the
# tiles against the embeddings of captions and class names.
_base_ = [
    './mm-grounding-dino_r18_160_boxes.py',
    '../_base_/clim/openmoji_captions_tags.py',
]
clim_mosaic_dataset = _base_.clim_mosaic_dataset
clim_mosaic_dataset.pipeline[2].update(tile_size=(80, 80), out_size=(160, 160))
model = dict(
    _delete_=True,
    type='mmdet_clim.CLIMDetector',
    detector=_base_.model,
    objectives=_base_.clim_objectives,
    text_encoder=_base_.clim_text_encoder,
    region_reader=dict(type='mmdet_clim.GroundingReader', source='query'))
train_dataloader = dict(
    _delete_=True,
    batch_size=12,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(
        type='mmdet_clim.MultiSourceSampler',
        batch_size=12,
        source_ratio=[8, 4]),
    dataset=dict(
        type='mmdet_clim.MultiSourceDataset',
        datasets=[_base_.train_dataset, clim_mosaic_dataset]))
auto_scale_lr = dict(base_batch_size=12)
