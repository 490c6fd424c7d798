# RegionCLIP's way, with the detector as its own labeller: the proposals of
# whole images are taught the tag that they resemble most.
_base_ = './whole-images.py'
pseudo_label = dict(
    type='mmdet_clim.RegionPseudoLabelObjective',
    vocabulary=_base_.clim_vocabulary,
    templates=_base_.clim_templates,
    loss=_base_.clim_objectives.tag.loss)
model = dict(
    objectives=dict(_delete_=True, pseudo_label=pseudo_label),
    branches=dict(captions=['pseudo_label']))
