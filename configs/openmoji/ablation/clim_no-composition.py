# CLIM on single tiles alone.
_base_ = '../faster-rcnn_r18-c4_256_captions-tags_clim.py'
model = dict(objectives=dict(caption=dict(num_compositions=0)))
