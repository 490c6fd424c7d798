# RegionCLIP's way, with the detector as its own labeller: the proposals of
# whole images are taught the tag that they resemble most.
_base_ = '../detic_r50-caffe-c4_45k_ov-coco_captions-tags.py'
pseudo_label = dict(
    type='mmdet_clim.RegionPseudoLabelObjective',
    vocabulary=_base_.clim_vocabulary,
    templates=_base_.clim_templates,
    loss=_base_.clim_tag_objective.loss)
model = dict(
    objectives=dict(_delete_=True, pseudo_label=pseudo_label),
    branches=dict(captions=['pseudo_label']))
