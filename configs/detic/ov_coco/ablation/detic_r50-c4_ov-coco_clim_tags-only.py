# CLIM with tags alone.
_base_ = '../detic_r50-caffe-c4_45k_ov-coco_captions-tags_clim.py'
model = dict(
    objectives=dict(_delete_=True, tag=_base_.clim_tag_objective),
    branches=dict(captions=['tag'], mosaic=['tag']))
