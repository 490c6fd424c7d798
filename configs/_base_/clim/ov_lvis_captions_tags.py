# CLIM and Detic's captions on OV-LVIS, the published constants (REFERENCE.md,
# sections 1 and 2), with CC3M's captions. A fragment: it defines names of its
# own (clim_*), which a config puts in their places.
# CC3M_ROOT names the folder, CC3M_CAPTIONS and CC3M_IMAGES the file and the
# images in it; the classes of the tags are those of OV_LVIS_ROOT.
clim_data_root = '{{$CC3M_ROOT:data/cc3m/}}'
clim_vocabulary = dict(
    dataset='mmdet_clim.OVLVISDataset',
    ann_file='{{$OV_LVIS_ROOT:data/lvis/}}annotations/lvis_v1_val.json')
# The classes by the names that LVIS has for them ("a alarm_clock").
clim_templates = ('a {raw}', )
clim_text_encoder = dict(
    type='mmdet_clim.OpenCLIPTextEncoder',
    model='ViT-B-32-quickgelu',
    pretrained='{{$CLIP_VIT_B_32:openai}}')

# Detic's way: the whole image is the region, of the sizes of boxed images.
clim_caption_pipeline = [
    dict(type='mmdet_clim.LoadImageText', scale=(1280, 1280)),
    dict(
        type='RandomResize',
        scale=(640, 640),
        ratio_range=(0.1, 2.0),
        resize_type='mmdet.Resize',
        keep_ratio=True),
    dict(type='mmdet.RandomCrop', crop_type='absolute', crop_size=(640, 640)),
    dict(type='mmdet.RandomFlip', prob=0.5),
    dict(type='mmdet_clim.PackRegionTextInputs', branch='captions'),
]
# An image as it goes into a tile.
clim_image_pipeline = [
    dict(type='mmdet_clim.LoadImageText', scale=(480, 480)),
    dict(
        type='RandomResize',
        scale=(320, 320),
        ratio_range=(0.5, 1.5),
        resize_type='mmdet.Resize',
        keep_ratio=True),
    dict(type='mmdet.RandomCrop', crop_type='absolute', crop_size=(320, 320)),
    dict(type='mmdet.RandomFlip', prob=0.5),
]
clim_source = dict(
    type='mmdet_clim.ImageTextDataset',
    vocabulary=clim_vocabulary,
    data_root=clim_data_root,
    ann_file='{{$CC3M_CAPTIONS:cc3m_train_tags.jsonl}}',
    data_prefix=dict(img='{{$CC3M_IMAGES:training/}}'),
    filter_cfg=dict(tagged=True))
clim_caption_dataset = dict(pipeline=clim_caption_pipeline, **clim_source)
clim_mosaic = dict(
    type='mmdet_clim.MosaicCLIM',
    grids=((2, 2), (3, 3), (4, 4)),
    tile_size=(320, 320),
    out_size=(640, 640),
    align='published',
    partners='others',
    cache_size=1024)
clim_mosaic_dataset = dict(
    pipeline=[
        *clim_image_pipeline,
        clim_mosaic,
        dict(type='mmdet_clim.PackRegionTextInputs', branch='mosaic'),
    ],
    **clim_source)

clim_caption_objective = dict(
    type='mmdet_clim.RegionCaptionObjective',
    num_compositions=2,
    queue=dict(type='mmdet_clim.FeatureQueue', size=256, dim=512),
    loss=dict(
        type='mmdet_clim.CLIMRegionLoss',
        kind='bce',
        temperature=50.0,
        bias=None,
        positive_reduction='mean',
        negative_weight=0.125,
        loss_weight=1.0))
clim_tag_objective = dict(
    type='mmdet_clim.RegionTagObjective',
    vocabulary=clim_vocabulary,
    templates=clim_templates,
    num_compositions=2,
    refine_regions=True,
    loss=dict(
        type='mmdet_clim.CLIMRegionLoss',
        kind='bce',
        temperature=50.0,
        bias=None,
        positive_reduction='sum',
        loss_weight=0.1))
