# What captions could give at best: tile boxes with the names of what they
# show. To compare with detic_r50-caffe-c4_45k_ov-coco_captions_clim.py.
_base_ = '../detic_r50-caffe-c4_45k_ov-coco_captions-tags_clim.py'
model = dict(
    objectives=dict(
        _delete_=True, tag=dict(_base_.clim_tag_objective, regions='tiles')),
    branches=dict(captions=['tag'], mosaic=['tag']))
