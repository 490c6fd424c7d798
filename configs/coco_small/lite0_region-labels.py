# RegionCLIP's way: random boxes that the CLIP of whole photographs labels
# with the class names, federated BCE.
_base_ = './lite0_clim.py'
model = dict(
    objectives=dict(
        _delete_=True,
        labels=dict(
            type='mmdet_clim.RegionLabelObjective',
            boxes=dict(type='mmdet_clim.RandomBoxes', num_boxes=4),
            vocabulary=_base_.region_vocabulary,
            templates=_base_.region_templates,
            temperature=20.0,
            bias=-8.0,
            min_confidence=0.3)))
train_dataloader = dict(batch_size=8)
auto_scale_lr = dict(base_batch_size=8)
