# What captions could give at best: tile boxes with the names of what they
# show. To compare with clim_captions-only.py.
_base_ = './clim_default.py'
model = dict(
    objectives=dict(
        _delete_=True, tag=dict(_base_.clim_objectives.tag, regions='tiles')),
    branches=dict(captions=['tag'], mosaic=['tag']))
