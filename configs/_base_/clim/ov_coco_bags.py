# BARON's bags of regions on OV-COCO, and CLIM on them. A fragment: it defines
# names of its own (clim_*).
_base_ = ['./ov_coco_captions_tags.py', './baron_bags.py']

# BARON's captioned images are as large as those with boxes.
clim_caption_pipeline = [
    dict(type='mmdet_clim.LoadImageText'),
    dict(type='mmdet.Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='mmdet.RandomFlip', prob=0.5),
    dict(type='mmdet_clim.PackRegionTextInputs', branch='captions'),
]
clim_caption_dataset = dict(pipeline=clim_caption_pipeline)
