# CLIM on single tiles alone.
_base_ = './clim_default.py'
model = dict(objectives=dict(caption=dict(num_compositions=0)))
