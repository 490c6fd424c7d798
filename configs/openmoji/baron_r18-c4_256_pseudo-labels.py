# BARON and pseudo-labels: as baron_r18-c4_256_captions.py, with pseudo-labels
# beside the bags, as in demo_pseudo-labels.py.
_base_ = './baron_r18-c4_256_captions.py'
pseudo_label = dict(
    type='mmdet_clim.RegionPseudoLabelObjective',
    vocabulary=_base_.clim_vocabulary,
    templates=_base_.clim_templates,
    loss=dict(_base_.clim_objectives.tag.loss, loss_weight=0.3))
model = dict(
    objectives=dict(pseudo_label=pseudo_label),
    branches=dict(captions=['bag', 'pseudo_label']))
