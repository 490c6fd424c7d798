# CLIM on the small CLIP with 2x2 mosaics, in whose tiles the patches that
# resemble the caption weigh more.
_base_ = './clip_clim_2x2.py'
model = dict(objectives=dict(clim=dict(text_sharpness=10.)))
