# CLIM whose captions meet the largest proposal of a tile, not the tile.
_base_ = '../detic_r50-caffe-c4_45k_ov-coco_captions-tags_clim.py'
model = dict(objectives=dict(caption=dict(regions='proposals')))
