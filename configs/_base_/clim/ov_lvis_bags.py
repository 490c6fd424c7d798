# BARON's bags of regions on OV-LVIS, with CC3M's captions, and CLIM on them.
# REFERENCE.md, section 3, gives its constants for OV-COCO, and they are taken
# over. A fragment: it defines names of its own (clim_*).
_base_ = './ov_lvis_captions_tags.py'

clim_bag_objective = dict(
    type='mmdet_clim.BagOfRegionsObjective',
    num_compositions=2,
    queue=dict(type='mmdet_clim.FeatureQueue', size=1024, dim=512),
    loss=dict(
        type='mmdet_clim.CLIMRegionLoss',
        kind='infonce',
        temperature=30.0,
        loss_weight=10.0))
