# Boxes, and captions and tags of whole images (Detic's own recipe).
_base_ = './detic_r50-centernet2_45k_ov-lvis_captions.py'
model = dict(
    objectives=dict(tag=_base_.clim_tag_objective),
    branches=dict(captions=['caption', 'tag']))
