# Roboflow-100, and whatever else Roboflow exports as COCO: a folder for each
# data set, with test/_annotations.coco.json beside its images.
# ROBOFLOW100_ROOT names the folder that holds them. A config takes
# sets_test_cfg for its test_cfg.
sets_test_cfg = dict(
    type='mmdet_clim.DetectionSetsLoop',
    root='{{$ROBOFLOW100_ROOT:data/rf100/}}',
    sets=['*'],
    ann_files=['test/_annotations.coco.json'])
