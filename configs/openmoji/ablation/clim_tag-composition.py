# CLIM with composed regions for tags too, as published.
_base_ = './clim_default.py'
model = dict(objectives=dict(tag=dict(num_compositions=4)))
