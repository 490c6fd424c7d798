# Dense detector: as fcos_r18_256_captions-tags.py, with pseudo-labels in the
# place of CLIM's objectives, as in demo_pseudo-labels.py.
_base_ = './fcos_r18_256_captions-tags.py'
# At first no place has a cosine of 0.2, the default, with its tags.
pseudo_label = dict(
    type='mmdet_clim.RegionPseudoLabelObjective',
    vocabulary=_base_.clim_vocabulary,
    templates=_base_.clim_templates,
    loss=_base_.clim_objectives.tag.loss,
    min_similarity=0.)
model = dict(
    objectives=dict(_delete_=True, pseudo_label=pseudo_label),
    branches=dict(captions=['pseudo_label']))
