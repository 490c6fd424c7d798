# Boxes, captions, tags, and CLIM mosaics with both, with Swin-B.
_base_ = [
    './detic_r50-centernet2_45k_ov-lvis_captions-tags_clim.py',
    '../../_base_/models/swin-b.py',
]
model = dict(
    detector=dict(
        backbone=dict(_delete_=True, **_base_.swin_b),
        neck=dict(in_channels=_base_.swin_b_channels)))
load_from = \
    'work_dirs/detic_swin-b-centernet2_90k_ov-lvis_base/iter_90000.pth'
