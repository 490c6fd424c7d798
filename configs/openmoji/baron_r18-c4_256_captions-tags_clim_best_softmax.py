# BARON and CLIM as in baron_r18-c4_256_captions_clim.py, and tags: each at the
# proposal that fits it best, with a softmax over the classes.
_base_ = './baron_r18-c4_256_captions_clim.py'
clim_tag_objective = dict(
    _base_.clim_objectives.tag,
    regions='best',
    max_proposals=10,
    loss=dict(_base_.clim_softmax_loss, loss_weight=0.3))
model = dict(
    objectives=dict(tag=clim_tag_objective),
    branches=dict(captions=['bag', 'tag'], mosaic=['bag', 'tag']))
