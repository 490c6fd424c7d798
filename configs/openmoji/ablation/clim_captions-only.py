# CLIM with captions alone.
_base_ = './clim_default.py'
model = dict(
    objectives=dict(_delete_=True, caption=_base_.clim_objectives.caption),
    branches=dict(captions=['caption'], mosaic=['caption']))
