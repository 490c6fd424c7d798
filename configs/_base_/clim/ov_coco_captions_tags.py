# CLIM and Detic's captions on OV-COCO, the published constants
# (REFERENCE.md, sections 1 and 2). A fragment: it defines names of its own
# (clim_*), which a config puts in their places.
clim_data_root = '{{$OV_COCO_ROOT:data/coco/}}'
clim_vocabulary = dict(dataset='mmdet_clim.OVCoco80Dataset')
clim_templates = 'vild'
clim_text_encoder = dict(
    type='mmdet_clim.OpenCLIPTextEncoder',
    model='ViT-B-32-quickgelu',
    pretrained='{{$CLIP_VIT_B_32:openai}}')

# Detic's way: the whole image is the region, about a quarter of the size of
# boxed images.
clim_caption_pipeline = [
    dict(type='mmdet_clim.LoadImageText', scale=(667, 400)),
    dict(type='mmdet.Resize', scale=(667, 400), keep_ratio=True),
    dict(type='mmdet.RandomFlip', prob=0.5),
    dict(type='mmdet_clim.PackRegionTextInputs', branch='captions'),
]
clim_mosaic_pipeline = [
    dict(type='mmdet_clim.LoadImageText', scale=(400, 400)),
    dict(type='mmdet.Resize', scale=(400, 400), keep_ratio=True),
    dict(type='mmdet.RandomFlip', prob=0.5),
    dict(
        type='mmdet_clim.MosaicCLIM',
        grids=((2, 2), (3, 3), (4, 4)),
        tile_size=(400, 400),
        out_size=(800, 800),
        align='published',
        partners='others',
        cache_size=1024),
    dict(type='mmdet_clim.PackRegionTextInputs', branch='mosaic'),
]
clim_source = dict(
    type='mmdet_clim.ImageTextDataset',
    vocabulary=clim_vocabulary,
    data_root=clim_data_root,
    ann_file='annotations/captions_train2017_tags.json',
    data_prefix=dict(img='train2017/'),
    filter_cfg=dict(tagged=True))
clim_caption_dataset = dict(pipeline=clim_caption_pipeline, **clim_source)
clim_mosaic_dataset = dict(pipeline=clim_mosaic_pipeline, **clim_source)

# Weight 0.1, then scaled by (regions / 4): a sum over regions, divided by 4.
clim_caption_objective = dict(
    type='mmdet_clim.RegionCaptionObjective',
    num_compositions=4,
    queue=dict(type='mmdet_clim.FeatureQueue', size=256, dim=512),
    avg_factor=4,
    loss=dict(
        type='mmdet_clim.CLIMRegionLoss',
        kind='bce',
        temperature=25.0,
        bias=-20.0,
        positive_reduction='mean',
        negative_weight=0.125,
        loss_weight=0.1))
clim_tag_objective = dict(
    type='mmdet_clim.RegionTagObjective',
    vocabulary=clim_vocabulary,
    templates=clim_templates,
    num_compositions=4,
    loss=dict(
        type='mmdet_clim.CLIMRegionLoss',
        kind='bce',
        temperature=25.0,
        bias=-20.0,
        positive_reduction='sum',
        loss_weight=0.1 / 3))
