# As demo_clim.py, and each tag of a tile has a proposal of its own, as in
# demo_captions-tags_best.py.
_base_ = './demo_clim.py'
model = dict(objectives=dict(tag=dict(regions='best', max_proposals=10)))
