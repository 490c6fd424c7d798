# CLIM on OpenAI's CLIP ViT-B/16: 29 of 32 images of 224 pixels in three
# mosaics of 1024, the last 6 of 12 blocks trained (REFERENCE.md, section 4).
clip = dict(model='ViT-B-16-quickgelu', pretrained='{{$CLIP_VIT_B_16:openai}}')
model = dict(
    type='mmdet_clim.CLIMOnCLIP',
    image_tower=dict(type='mmdet_clim.DenseImageTower', mode='value', **clip),
    text_encoder=dict(type='mmdet_clim.OpenCLIPTextEncoder', **clip),
    unlocked_blocks=6,
    image_size=(224, 224),
    objectives=dict(
        clim=dict(
            type='mmdet_clim.MosaicTextObjective',
            grids=((2, 2), (3, 3), (4, 4)),
            mosaic_size=(1024, 1024),
            loss=dict(
                type='mmdet_clim.CLIMRegionLoss',
                kind='infonce',
                learn_temperature=True,
                gather=True))),
    vocabulary=dict(dataset='mmdet_clim.CocoPanopticRegionDataset'),
    templates='vild',
    # COCO's: crops of things are enlarged, those of stuff are not.
    num_things=80)
averaging = dict(type='mmdet_clim.WeightAveragingHook', alpha=0.7)
