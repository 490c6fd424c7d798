# CLIM whose captions meet the largest proposal of a tile, not the tile.
_base_ = './clim_default.py'
model = dict(objectives=dict(caption=dict(regions='proposals')))
