# BARON and whole images with the options of
# baron_r18-c4_256_captions-tags_clim_best_softmax.py.
_base_ = './baron_r18-c4_256_captions.py'
clim_tag_objective = dict(
    _base_.clim_objectives.tag,
    regions='best',
    max_proposals=10,
    loss=dict(_base_.clim_softmax_loss, loss_weight=0.3))
model = dict(
    objectives=dict(tag=clim_tag_objective),
    branches=dict(captions=['bag', 'tag']))
