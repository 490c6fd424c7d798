# CLIM with tags alone.
_base_ = '../faster-rcnn_r18-c4_256_captions-tags_clim.py'
model = dict(
    objectives=dict(_delete_=True, tag=_base_.clim_objectives.tag),
    branches=dict(captions=['tag'], mosaic=['tag']))
