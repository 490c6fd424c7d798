# BARON's objectives, captions and distillation (REFERENCE.md, section 3): the
# constants of OV-COCO with a C4, whose regions have four words. A fragment: it
# defines names of its own (clim_*), which a config puts in their places.
clim_bag_objective = dict(
    type='mmdet_clim.BagOfRegionsObjective',
    num_compositions=4,
    bags=dict(word_dim=512, num_words=4, num_orders=4, drop_prob=0.5),
    proposals=dict(
        max_considered=128,
        max_aspect=4.0,
        min_area=0.01,
        min_score=0.85,
        nms_iou=0.2,
        max_objects=10),
    queue=dict(type='mmdet_clim.FeatureQueue', size=1024, dim=512),
    loss=dict(
        type='mmdet_clim.CLIMRegionLoss',
        kind='infonce',
        temperature=30.0,
        loss_weight=10.0))
# An objective of `boxes`: the annotated boxes are among the objects. Shape and
# score of an object are those of the captions. `data_preprocessor` is that of
# the detector, and each config adds it.
clim_distillation_objective = dict(
    type='mmdet_clim.BagDistillationObjective',
    image_encoder=dict(
        model='ViT-B-32-quickgelu', pretrained='{{$CLIP_VIT_B_32:openai}}'),
    bags=dict(word_dim=512, num_words=4, num_orders=2, drop_prob=0.5),
    num_groups=3,
    base_prob=0.3,
    alpha=3.0,
    cut_off=0.3,
    interval=-0.1,
    proposals=dict(max_considered=300, nms_iou=0.1, max_objects=None),
    queue=dict(type='mmdet_clim.FeatureQueue', size=1024, dim=512),
    loss=dict(
        type='mmdet_clim.CLIMRegionLoss',
        kind='infonce',
        temperature=30.0,
        loss_weight=1.0),
    object_loss=dict(
        type='mmdet_clim.CLIMRegionLoss',
        kind='infonce',
        temperature=50.0,
        loss_weight=0.1))
