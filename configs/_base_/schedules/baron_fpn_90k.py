# BARON with an FPN: SGD 0.04 for 16 GPUs of 2 images, weight decay 2.5e-5
# (REFERENCE.md, section 3). The steps of the learning rate, its warm-up and
# the clipping are those of the C4 recipes.
_base_ = './detic_90k.py'
optim_wrapper = dict(optimizer=dict(lr=0.04, weight_decay=2.5e-5))
