# CLIM with captions alone.
_base_ = '../faster-rcnn_r18-c4_256_captions-tags_clim.py'
model = dict(
    objectives=dict(_delete_=True, caption=_base_.clim_objectives.caption),
    branches=dict(captions=['caption'], mosaic=['caption']))
