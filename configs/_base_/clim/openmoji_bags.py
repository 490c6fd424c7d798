# BARON's bags of regions on OpenMoji-COCO's captioned scenes, and CLIM on
# them. A fragment: it defines names of its own (clim_*).
_base_ = './openmoji_captions_tags.py'

# Fewer words than in OV-COCO's recipe, one order, and bags of at most eight
# regions: every word is read by a sentence encoder, on two CPU cores. Shorter
# queues and a smaller weight: 8 bags a step would fill queues of 1024 in 128
# of the 300 iterations, and until then a weight of 10 would drown the others.
clim_bag_objective = dict(
    type='mmdet_clim.BagOfRegionsObjective',
    num_compositions=4,
    bags=dict(
        word_dim=384, num_words=2, num_orders=1, drop_prob=0.5, max_regions=8),
    proposals=dict(max_objects=4),
    queue=dict(type='mmdet_clim.FeatureQueue', size=128, dim=384),
    loss=dict(
        type='mmdet_clim.CLIMRegionLoss',
        kind='infonce',
        temperature=30.0,
        loss_weight=2.0))
