# CLIM on the captioned scenes of OpenMoji's LVIS-like data: as on
# OpenMoji-COCO, with the published grids (the smallest tile is 8 cells of the
# feature map of stride 8 wide), the classifier's 50 without a bias, and the
# published weight of tags. The best three proposals of a tile instead of 128:
# there are 200 of a whole mosaic, and the largest of all those of a tile holds
# two objects or none (docs/long_tail.md).
_base_ = './openmoji_captions_tags.py'
clim_data_root = '{{$OPENMOJI_LVIS_ROOT:data/openmoji_lvis/}}'
clim_vocabulary = dict(
    dataset='mmdet_clim.OVLVISDataset',
    ann_file=clim_data_root + 'annotations/lvis_v1_val.json')
clim_mosaic = dict(
    _base_.clim_mosaic_pipeline[2], grids=((2, 2), (3, 3), (4, 4)))
clim_mosaic_pipeline = [
    *_base_.clim_mosaic_pipeline[:2],
    clim_mosaic,
    _base_.clim_mosaic_pipeline[3],
]
clim_caption_dataset = dict(
    vocabulary=clim_vocabulary, data_root=clim_data_root)
clim_mosaic_dataset = dict(
    vocabulary=clim_vocabulary,
    data_root=clim_data_root,
    pipeline=clim_mosaic_pipeline)
clim_objectives = dict(
    caption=dict(loss=dict(temperature=50.0, bias=None, loss_weight=0.02)),
    tag=dict(
        vocabulary=clim_vocabulary,
        max_proposals=3,
        loss=dict(temperature=50.0, bias=None, loss_weight=0.1)))
