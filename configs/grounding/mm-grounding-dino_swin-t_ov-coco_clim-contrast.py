# MM-Grounding-DINO and CLIM on OV-COCO by the other route: the decoder's
# queries at the tiles against the embeddings of captions and class names.
_base_ = [
    './mm-grounding-dino_swin-t_ov-coco_boxes.py',
    '../_base_/clim/ov_coco_captions_tags.py',
]
model = dict(
    _delete_=True,
    type='mmdet_clim.CLIMDetector',
    detector=_base_.model,
    objectives=dict(
        caption=_base_.clim_caption_objective,
        tag=dict(_base_.clim_tag_objective, vocabulary=_base_.vocabulary)),
    text_encoder=_base_.clim_text_encoder,
    region_reader=dict(type='mmdet_clim.GroundingReader', source='query'))
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
            # The 65 classes of the boxes, as in mmdet's own recipe.
            dict(_base_.clim_mosaic_dataset, vocabulary=_base_.vocabulary)
        ]))
# The samples of both sources count.
auto_scale_lr = dict(base_batch_size=128)
