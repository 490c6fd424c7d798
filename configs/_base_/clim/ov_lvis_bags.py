# BARON's bags of regions on OV-LVIS, distillation, and captions of CC3M, and
# CLIM on them. REFERENCE.md, section 3, gives its constants for OV-COCO, and
# they are taken over. A fragment: it defines names of its own (clim_*).
_base_ = './ov_lvis_captions_tags.py'

clim_bag_objective = dict(
    type='mmdet_clim.BagOfRegionsObjective',
    num_compositions=2,
    bags=dict(word_dim=512, num_words=4),
    queue=dict(type='mmdet_clim.FeatureQueue', size=1024, dim=512),
    loss=dict(
        type='mmdet_clim.CLIMRegionLoss',
        kind='infonce',
        temperature=30.0,
        loss_weight=10.0))
clim_distillation_objective = dict(
    type='mmdet_clim.BagDistillationObjective',
    image_encoder=dict(
        model='ViT-B-32-quickgelu', pretrained='{{$CLIP_VIT_B_32:openai}}'),
    bags=dict(word_dim=512, num_words=4, num_orders=2),
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
