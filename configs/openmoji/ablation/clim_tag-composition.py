# CLIM with composed regions for tags too, as published.
_base_ = '../faster-rcnn_r18-c4_256_captions-tags_clim.py'
model = dict(objectives=dict(tag=dict(num_compositions=4)))
