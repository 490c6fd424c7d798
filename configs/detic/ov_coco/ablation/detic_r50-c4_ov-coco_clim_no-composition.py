# CLIM on single tiles alone.
_base_ = '../detic_r50-caffe-c4_45k_ov-coco_captions-tags_clim.py'
model = dict(
    objectives=dict(
        caption=dict(num_compositions=0), tag=dict(num_compositions=0)))
