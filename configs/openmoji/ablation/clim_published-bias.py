# CLIM with biases that start where the OV-COCO recipe's do.
_base_ = './clim_default.py'
model = dict(
    objectives=dict(
        caption=dict(loss=dict(bias=-20.0)), tag=dict(loss=dict(bias=-20.0))))
