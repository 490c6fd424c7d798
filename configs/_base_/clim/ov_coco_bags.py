# BARON's bags of regions on OV-COCO, captions and distillation, and CLIM on
# them (REFERENCE.md, section 3). A fragment: it defines names of its own
# (clim_*), which a config puts in their places.
_base_ = './ov_coco_captions_tags.py'

# tau 30, weight 10, queues of 1024; 4 words, 4 orders, dropout 0.5, at most 10
# proposals and 5 captions are the defaults.
clim_bag_objective = dict(
    type='mmdet_clim.BagOfRegionsObjective',
    num_compositions=4,
    queue=dict(type='mmdet_clim.FeatureQueue', size=1024, dim=512),
    loss=dict(
        type='mmdet_clim.CLIMRegionLoss',
        kind='infonce',
        temperature=30.0,
        loss_weight=10.0))
# The weight is ours: a tenth of the captions', whose gradient keeps the upper
# hand where both are there. `data_preprocessor` is that of the detector, and
# each config adds it.
clim_distillation_objective = dict(
    type='mmdet_clim.BagDistillationObjective',
    image_encoder=dict(
        model='ViT-B-32-quickgelu', pretrained='{{$CLIP_VIT_B_32:openai}}'),
    bags=dict(num_orders=1),
    proposals=dict(max_objects=4),
    queue=dict(type='mmdet_clim.FeatureQueue', size=1024, dim=512),
    loss=dict(
        type='mmdet_clim.CLIMRegionLoss',
        kind='infonce',
        temperature=30.0,
        loss_weight=1.0))
