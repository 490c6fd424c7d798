# As demo_captions-tags_best.py, and a region is asked which of the classes it
# is, instead of each class whether it is there.
_base_ = './demo_captions-tags_best.py'
model = dict(
    objectives=dict(
        tag=dict(loss=dict(_delete_=True, **_base_.clim_softmax_loss))))
