# CLIM with tags alone.
_base_ = './clim_default.py'
model = dict(
    objectives=dict(_delete_=True, tag=_base_.clim_objectives.tag),
    branches=dict(captions=['tag'], mosaic=['tag']))
