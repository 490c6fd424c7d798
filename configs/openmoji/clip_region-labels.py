# What CLIM is compared with ("RegionCLIP" in REFERENCE.md, section 4) on the
# small CLIP: random boxes that it labels with the class names, federated BCE.
_base_ = './clip_clim.py'
model = dict(
    objectives=dict(
        _delete_=True,
        labels=dict(
            type='mmdet_clim.RegionLabelObjective',
            boxes=dict(type='mmdet_clim.RandomBoxes', num_boxes=10),
            vocabulary=_base_.region_vocabulary,
            templates=('a picture of a {}.', ),
            temperature=25.0,
            bias=-10.0,
            min_confidence=0.3)))
train_dataloader = dict(batch_size=8)
