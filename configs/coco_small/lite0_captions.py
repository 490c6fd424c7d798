# As many further iterations with whole photographs: what CLIM is compared
# with beside the two ways of others.
_base_ = './lite0_clim.py'
model = dict(objectives=dict(clim=dict(grids=((1, 1), ))))
