# Box-supervised on the 866 base classes, with Swin-B.
_base_ = [
    './detic_r50-centernet2_90k_ov-lvis_base.py',
    '../../_base_/models/swin-b.py',
]
model = dict(
    backbone=dict(_delete_=True, **_base_.swin_b),
    neck=dict(in_channels=_base_.swin_b_channels))
